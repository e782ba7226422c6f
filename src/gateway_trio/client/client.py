"""A client of a gateway: a connection that comes back, and what can be asked over it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import trio

from gateway_trio.client.address import parse_url
from gateway_trio.client.errors import ClientError, Lost
from gateway_trio.client.facts import ExecFacts, Phase
from gateway_trio.client.keeper import Keeper, Plan
from gateway_trio.client.news import News, Reader
from gateway_trio.client.wire import Wire
from gateway_trio.core.jsonrpc import Notification, Request

__all__ = ["CONNECT_SECONDS", "Client", "connect"]

#: One try to connect, up to the answer to `initialize`.
CONNECT_SECONDS = 10.0
#: What is posted already when the block of `connect` ends is sent within this time.
_FLUSH_SECONDS = 1.0


class Client:
    """What `connect` gives.

    While the connection is being brought back, whatever is asked waits for it; give it a `trio.fail_after` where
    that is too long. A request whose answer was lost with the connection raises `Lost`: it may have been carried
    out. When the connection is over, everything raises why (`Closed`, or what the last try failed with).
    """

    def __init__(self, plan: Plan) -> None:
        self._keeper = Keeper(plan, self)
        self._phases: News[Phase] = News()
        self._over: ClientError | None = None
        self._changed = trio.Event()

    # --- what can be asked ---

    async def call(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request of the protocol and return its result.

        Raises `Refused`, `Lost`, and whatever the connection is over with. When it is cancelled the answer is
        dropped.
        """
        return await (await self._connected()).call(method, params)

    async def status(self) -> Mapping[str, Any]:
        """Return phase, reasons, counts and the breaker, as docs/protocol.md has them. Raises as `call` does."""
        return await self.call("_gateway-trio/status")

    async def exec(self, name: str, args: Sequence[str] = ()) -> ExecFacts:
        """Run a quick command without a session; return how it ended, with its output.

        `args` are the words themselves. Raises as `call` does. Cancelling it here does not stop it there.
        """
        return ExecFacts.from_wire(await self.call("_gateway-trio/exec", {"name": name, "args": list(args)}))

    async def kill(self, id_: str) -> None:
        """End a running quick command: one's own; any, for an admin. Raises as `call` does."""
        await self.call("_gateway-trio/kill", {"id": id_})

    async def drain(self, why: str = "") -> Mapping[str, Any]:
        """Let no turn start until `undrain`; return the status. Raises as `call` does."""
        return await self.call("_gateway-trio/drain", {"why": why})

    async def undrain(self, reason: str = "operator") -> Mapping[str, Any]:
        """Take a reason for the drain back, `operator` or `backend`; return the status. Raises as `call` does."""
        return await self.call("_gateway-trio/undrain", {"reason": reason})

    async def restart(self) -> str:
        """Let the gateway check its config and drain for a restart; return what it says of that.

        Raises as `call` does, `Refused` for a config that cannot be used.
        """
        return str((await self.call("_gateway-trio/restart")).get("message", ""))

    # --- what it tells ---

    @property
    def phase(self) -> Phase | None:
        """The newest phase that it told; None before the first."""
        return self._phases.value

    def phases(self) -> Reader[Phase]:
        """Iterate over the phases: the present one, then each change; one who reads slowly gets only the newest.

        It goes on over a restart of the gateway, and raises, when the connection is over, what that ended with.
        """
        return Reader(self._phases)

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._keeper.wire is not None

    # --- inside ---

    async def _connected(self) -> Wire:
        await trio.lowlevel.checkpoint()
        while (wire := self._keeper.wire) is None:
            if self._over is not None:
                raise copy.copy(self._over)
            await self._changed.wait()
        return wire

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def up(self, wire: Wire) -> None:  # noqa: ARG002 - the keeper has it
        self._wake()

    async def welcome(self, wire: Wire) -> None:
        """Nothing yet."""

    def incoming(self, message: Request | Notification) -> None:
        params = message.params if isinstance(message.params, dict) else {}
        match message:
            case Notification("_gateway-trio/phase"):
                self._phases.set(Phase.from_wire(params))
            case Notification("_gateway-trio/goodbye"):
                after = params.get("reconnectAfterMs")
                self._keeper.goodbye_ms = after if isinstance(after, int) else None
            case Request(id_, method) if self._keeper.wire is not None:
                self._keeper.wire.reject(id_, method)

    def down(self, lost: Lost, wait_seconds: float) -> None:
        pass

    def over(self, error: ClientError) -> None:
        self._over = error
        self._phases.end(error)
        self._wake()

    async def _run(self, nursery: trio.Nursery) -> ClientError | None:
        """Start keeping the connection; return why the first try failed, None if it did not."""
        failed: ClientError | None = await nursery.start(self._keeper.run)
        return failed

    async def _leave(self) -> None:
        if (wire := self._keeper.wire) is not None:
            with trio.move_on_after(_FLUSH_SECONDS):
                await wire.flush()


@contextlib.asynccontextmanager
async def connect(
    url: str,
    *,
    token: str | None = None,
    token_in: Literal["header", "message"] = "header",  # noqa: S107 - where it goes, not what it is
    open_stream: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
    connect_seconds: float = CONNECT_SECONDS,
    come_back_seconds: float | None = None,
) -> AsyncIterator[Client]:
    """Connect to a gateway's `/acp` for the time of the block; at its end the connection is closed with 1000.

    Args:
        url: `ws://HOST[:PORT]` or `wss://…`.
        token: sent with the connection, never in the URL; None for a gateway that wants none.
        token_in: `header` sends it as `Authorization: Bearer`, `message` as ACP's `authenticate`, for a proxy that
            takes the header for itself.
        open_stream: makes the stream to the gateway, in place of a TCP connection to the URL's host.
        connect_seconds: how long one try may take, up to the answer to `initialize`.
        come_back_seconds: how long it is tried to bring a lost connection back. 0: not at all; None: without an
            end.

    Raises ValueError for a URL or a token that cannot be one, and `Unreachable`, `Unauthorized`, `Refused` or
    `Closed` where the first try fails: that one is not tried again. What the block raises comes through as it is.
    Cancelling closes the connection; whatever it asked for at the gateway goes on there.

    """
    address = parse_url(url)
    if token is not None and not (token.isascii() and token.isprintable() and token and " " not in token):
        raise ValueError("a token is printable ASCII without blanks")
    plan = Plan(address, token, token_in, open_stream or address.open, connect_seconds, come_back_seconds)
    client = Client(plan)
    fault: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            fault = await client._run(nursery)  # noqa: SLF001 - one class in two parts
            if fault is None:
                yield client
        except Exception as error:  # noqa: BLE001 - raised below, where no nursery wraps it
            fault = error
        await client._leave()  # noqa: SLF001
        nursery.cancel_scope.cancel()
    if fault is not None:
        raise fault
