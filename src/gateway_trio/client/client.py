"""A client of a gateway: a connection that comes back, and what can be asked over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import trio

from gateway_trio.client.facts import ExecFacts, Phase, SessionInfo
from gateway_trio.client.news import Reader
from gateway_trio.client.reading import Reading
from gateway_trio.client.session import Session
from gateway_trio.client.switchboard import Switchboard

__all__ = ["Client"]


class Client:
    """What `connect` gives.

    While the connection is being brought back, whatever is asked waits for it; give it a `trio.fail_after` where
    that is too long. A request whose answer was lost with the connection raises `Lost`: it may have been carried
    out. When the connection is over, everything raises why (`Closed`, or what the last try failed with).
    """

    def __init__(self, board: Switchboard) -> None:
        self._board = board

    # --- what can be asked ---

    async def call(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request of the protocol and return its result.

        Raises `Refused`, `Lost`, and whatever the connection is over with. When it is cancelled the answer is
        dropped.
        """
        return await (await self._board.connected()).call(method, params)

    async def status(self) -> Mapping[str, Any]:
        """Return phase, reasons, counts and the breaker, as docs/protocol.md has them. Raises as `call` does."""
        return await self.call("_gateway-trio/status")

    async def exec(self, name: str, args: Sequence[str] = (), *, stop: trio.Event | None = None) -> ExecFacts:
        """Run a quick command without a session; return how it ended, with its output.

        Args:
            name: of the command.
            args: the words themselves.
            stop: once it is set the gateway ends the command, and this returns the facts of that. None for never.

        Raises as `call` does. Cancelling it here does not stop it there.

        """
        ask = {"name": name, "args": list(args)}
        wire = await self._board.connected()
        return ExecFacts.from_wire(await wire.call("_gateway-trio/exec", ask, stop=stop))

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

    # --- sessions ---

    async def new_session(self) -> Session:
        """Make a session. Raises as `call` does."""
        wire = await self._board.connected()
        made: list[Session] = []

        def take(result: dict[str, Any]) -> None:
            session = self._board.add(str(result.get("sessionId", "")))
            session.attached(wire, result, "live")
            made.append(session)

        await wire.call("session/new", {"cwd": "/", "mcpServers": []}, take)
        return made[0]

    async def load_session(self, id_: str) -> Session:
        """Attach to a session; its `history` has all that the gateway keeps of it, 1,000 updates at most.

        Raises as `call` does, `Refused` as `unknown_session`, and ValueError for one that this client has.
        """
        session = self._board.add(id_)
        await self._board.attach(
            session, "session/load", {"sessionId": id_, "cwd": "/", "mcpServers": []}, "loaded"
        )
        return session

    async def resume(self, id_: str, *, after: int | None = None, epoch: str | None = None) -> Session:
        """Attach to a session.

        `after` is the last number that one has, and what follows it comes; None for what is new from now on.
        `epoch` is that of the log in which one had it; None where that is not known. Where the gateway cannot
        go on there, `history` has the `Gap`. Raises as `load_session` does.
        """
        session = self._board.add(id_, after or 0)
        params = session.resume_params(epoch) if after is not None else {"sessionId": id_, "cwd": "/"}
        await self._board.attach(session, "session/resume", params, "live" if after is None else "resumed")
        return session

    def read(self, id_: str) -> AbstractContextManager[Reading]:
        """Read a session, from its first event to the last that it has, in a `with` block: iterate over what that
        gives. Nothing is left out, however long it is: while nobody takes what has come, nothing more is read from
        the connection, for this session or for anything else.

        Raises ValueError for a session that this client has.
        """
        return self._board.reading(id_)

    async def sessions(self) -> list[SessionInfo]:
        """Return the sessions that one may use, newest first. Raises as `call` does."""
        found: list[SessionInfo] = []
        params: dict[str, Any] = {}
        while True:
            page = await self.call("session/list", params)
            found += map(SessionInfo.from_wire, page.get("sessions") or ())
            if (cursor := page.get("nextCursor")) is None:
                return found
            params = {"cursor": cursor}

    # --- what it tells ---

    @property
    def phase(self) -> Phase | None:
        """The newest phase that it told; None before the first."""
        return self._board.phases.value

    def phases(self) -> Reader[Phase]:
        """Iterate over the phases: the present one, then each change; one who reads slowly gets only the newest.

        It goes on over a restart of the gateway, and raises, when the connection is over, what that ended with.
        """
        return Reader(self._board.phases)

    @property
    def connected(self) -> bool:
        """Whether there is a connection now."""
        return self._board.keeper.wire is not None

    @property
    def losses(self) -> int:
        """How often the connection was lost: with the same number it is the same connection, and process."""
        return self._board.losses
