"""One session of a client: what is told of it, its prompts, and how it comes back.

Everything that comes is taken in synchronously by the connection's reader, so a prompt's answer is handled behind
the updates before it and before those after it. What one of the readers here does not take holds up nobody.

When the connection comes back the session is resumed behind what the client has.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from gateway_trio.client.errors import ClientError, Lost
from gateway_trio.client.outstanding import Outstanding
from gateway_trio.client.prompts import Prompt, Updates
from gateway_trio.client.wire import Wire
from gateway_trio.core.acp import OURS
from gateway_trio.core.jsonrpc import RequestId
from gateway_trio.core.mirror import Mirror
from gateway_trio.core.update_frames import permission
from gateway_trio.core.updates import (
    Away,
    Back,
    Commands,
    Gap,
    Notice,
    Permission,
    PermissionOver,
    Plan,
    State,
    Text,
    Tool,
    Update,
)

if TYPE_CHECKING:
    from gateway_trio.client.switchboard import Switchboard

__all__ = ["How", "Session"]

#: How a session came to a connection: made there, or resumed without a number; loaded; resumed behind one; or the
#: last, after another connection was lost.
How = Literal["live", "loaded", "resumed", "again"]

#: Permission requests that are open; the gateway has one for each tool call that waits.
_MOST_OPEN = 1000


class Session:
    """A session that this client made, loaded or resumed.

    `id` is the gateway's; `commands` are those that it told last, None before. `history` has what was told while
    the session was loaded, with a `Gap` where it could not be resumed where it was asked to.
    """

    def __init__(self, board: Switchboard, id_: str, last: int) -> None:
        self.id = id_
        self.commands: Commands | None = None
        self.history: tuple[Update, ...] = ()
        self._board = board
        self._mirror = Mirror(last)
        self._prompts = Outstanding(id_)
        self._epoch: str | None = None
        self._wire: Wire | None = None
        self._over: ClientError | None = None
        self._early: Updates | None = Updates()  #: for the first who reads, until somebody does or prompts
        self._readers: weakref.WeakSet[Updates] = weakref.WeakSet([self._early])
        self._open: dict[RequestId, Permission] = {}
        self._cancel_due = False

    # --- for its user ---

    def updates(self) -> Updates:
        """Iterate over all of the session's updates from now on, of every client's prompts; `Away`, `Back` and
        `Gap` say how the connection fares. The first call, before any prompt, gives what came since the session
        was made, loaded or resumed. Let go of it to end it. Raises what the session is over with.
        """
        reader, self._early = self._early or Updates(), None
        if self._over is not None:
            reader.end(self._over)
        self._readers.add(reader)
        return reader

    def prompt(self, text: str, *, key: str | None = None, on_busy: str | None = None) -> Prompt:
        """Send a prompt or a command, and return it to iterate over.

        Args:
            text: what a user would type.
            key: names it, 1 to 128 characters, unique in the session; None makes one.
            on_busy: `queue`, `interrupt` or `refuse` while a turn runs; None leaves it to the gateway's config.

        It is under way when this returns, or waits for the connection. It does not raise: a refusal, `busy` also
        where 256 prompts of this session have no outcome yet, is raised by the iteration.

        """
        self._early = None
        return self._prompts.add(text, key, on_busy)

    def cancel(self) -> None:
        """Cancel the running turn; if none runs, the quick commands that this connection started in it.

        While there is no connection it waits for that. Raises `Refused` as `busy` where too much waits to be sent.
        """
        if self._wire is None:
            self._cancel_due = True
        else:
            self._wire.notify("session/cancel", {"sessionId": self.id})

    def permissions(self) -> list[Permission]:
        """Return the permission requests that are open."""
        return list(self._open.values())

    def permit(self, request: Permission, option_id: str) -> bool:
        """Answer a permission request with one of its options; return False where it is not open any more."""
        if self._wire is None or self._open.get(request.id) is not request:
            return False
        self._wire.answer(request.id, {"outcome": {"outcome": "selected", "optionId": option_id}})
        del self._open[request.id]
        self._tell(PermissionOver(request.id))
        return True

    async def close(self) -> None:
        """Cancel what runs and waits in it, for everyone attached, and leave it. Raises as `Client.call` does."""
        await (await self._board.connected()).call("session/close", {"sessionId": self.id})
        self._board.forget(self)
        self.end(Lost("this session was closed here"))

    # --- for the client ---

    def attached(self, wire: Wire, result: Mapping[str, Any], how: How) -> None:
        """It was made, loaded or resumed on this connection; `again` after another one was lost."""
        told = _told(result)
        self._wire = wire
        if how == "again":
            self._tell(Back())
        if told.get("recovered") is False:
            self._not_recovered(told, how)
        if how == "loaded" and self._early is not None:
            self.history = tuple(self._early.drain())
        if how == "live":
            self._mirror.reset(_last(told))
        self._epoch = told.get("epoch") or self._epoch
        self._prompts.attach(wire)
        if self._cancel_due:
            self._cancel_due = False
            self.cancel()

    def _not_recovered(self, told: Mapping[str, Any], how: How) -> None:
        gap = Gap(None, None, str(told.get("reason")))
        if how == "loaded":
            return  # it was told in an update what is not kept any more
        self._mirror.reset(_last(told))
        self._tell(gap)
        if how != "again":
            self.history = (gap,)
        if gap.reason == "epoch":
            self._prompts.forgotten()

    def resume_params(self, epoch: str | None = None) -> dict[str, Any]:
        """Return the parameters with which the session is resumed behind what the client has; `epoch` is that of
        the log in which it had it, None for the one that is known here.
        """
        self._epoch = epoch or self._epoch
        self._mirror.resume()
        ours: dict[str, Any] = {"after": self._mirror.after}
        if self._epoch is not None:
            ours["epoch"] = self._epoch
        return {"sessionId": self.id, "cwd": "/", "_meta": {OURS: ours}}

    def on(self, wire: Wire) -> bool:
        """Whether it is attached on this connection."""
        return self._wire is wire

    def update(self, data: Mapping[str, Any]) -> None:
        """Take the `update` of a `session/update`."""
        for update in self._mirror.apply(data):
            self._take(update)

    def ask_permission(self, id_: RequestId, params: Mapping[str, Any]) -> None:
        """Take a `session/request_permission`. Beyond the bound it is left to others."""
        if len(self._open) < _MOST_OPEN:
            request = self._open[id_] = permission(id_, params)
            self._tell(request)

    def permission_over(self, id_: RequestId) -> bool:
        """Take a `$/cancel_request`; return whether it was one of this session's."""
        if self._open.pop(id_, None) is None:
            return False
        self._tell(PermissionOver(id_))
        return True

    def down(self, lost: Lost, wait_seconds: float) -> None:
        """The connection is lost and will be tried again."""
        self._wire = None
        self._prompts.detach()
        for id_ in list(self._open):
            self.permission_over(id_)
        self._tell(Away(lost.code, str(lost), wait_seconds))

    def end(self, error: ClientError) -> None:
        """It is over: for everybody who reads, and every prompt without an outcome."""
        self._over, self._wire = error, None
        self._prompts.end(error)
        for reader in list(self._readers):
            reader.end(error)

    # --- inside ---

    def _take(self, update: Update) -> None:
        match update:
            case Notice():
                self._prompts.notice(update)
            case Commands():
                self.commands = update
            case State(key=str(key), id=id_) if (prompt := self._prompts.bind(key, id_)) is not None:
                for text in self._mirror.texts(id_):  # what was said before it was known whose it is
                    prompt.put(text)
        for reader in list(self._readers):
            reader.put(update)
        match update:
            case State(id=id_) | Tool(owner=id_) | Plan(owner=id_):
                self._prompts.tell(id_, update)
            case Text(kind=kind, owner=id_) if kind != "prompt":
                self._prompts.tell(id_, update)

    def _tell(self, update: Update) -> None:
        """Tell everybody something that is no event of the session's."""
        for reader in list(self._readers):
            reader.put(update)
        self._prompts.tell_all(update)


def _last(told: Mapping[str, Any]) -> int:
    last = told.get("last")
    return last if isinstance(last, int) else 0


def _told(result: Mapping[str, Any]) -> Mapping[str, Any]:
    meta = result.get("_meta")
    ours = meta.get(OURS) if isinstance(meta, dict) else None
    return ours if isinstance(ours, dict) else {}
