"""The methods of ACP that make, find and leave sessions."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import evolve, frozen

from gateway_trio.core import acp
from gateway_trio.core.acp_params import CloseSession, ListSessions, LoadSession, NewSession, ResumeSession
from gateway_trio.core.commands import Role
from gateway_trio.core.cursor import Cursor
from gateway_trio.core.jsonrpc import RequestId, encode, problem, result
from gateway_trio.execs import Status
from gateway_trio.registry import TooManySessions
from gateway_trio.sessions import Session
from gateway_trio.store import SessionRow, StoreUnavailable
from gateway_trio.visible import sees

if TYPE_CHECKING:
    from gateway_trio.dialects.acp import AcpDialect

__all__ = ["SessionMethods"]

_T = TypeVar("_T")

#: Sessions in one answer to `session/list`. Each has its name twice, of 128 characters at most, which are 12 bytes
#: each in JSON at most: no frame is over 256 KiB.
_PAGE = 64

#: What we give as `nextCursor`. There are not more sessions than that, and no store counts without end.
_CURSOR = re.compile("[0-9]{1,15}")


@frozen
class _Place:
    """How much of which log a client has; None for what it does not say."""

    after: int | None
    epoch: Any

    def elsewhere(self, session: Session) -> str | None:
        """Return why this is no place in the session's log; None if it is one."""
        if self.epoch is not None and self.epoch != session.epoch:
            return "epoch"
        return "too_new" if self.after is not None and self.after > session.log.last else None

    async def look(self, session: Session) -> tuple[bool, Sequence[int]]:
        """Return whether what comes behind it is kept, and which messages before it were unfinished there.

        Raises `StoreUnavailable`.
        """
        if self.after is None or self.elsewhere(session) is not None:
            return True, ()
        return await session.keeps(self.after + 1), await session.growing(self.after) if self.after else ()


class SessionMethods:
    """`session/new`, `load`, `resume`, `list` and `close` of one connection."""

    def __init__(self, dialect: AcpDialect) -> None:
        self._dialect = dialect
        self._connection = dialect.connection
        self._sessions = dialect.gateway.sessions

    def new(self, id_: RequestId, _: NewSession) -> None:
        """Make a session; answered once its row is stored."""

        async def create() -> None:
            try:
                session = await self._sessions.create(self._connection.principal)
            except StoreUnavailable as fault:
                self._dialect.refuse(id_, problem("store_unavailable", str(fault)))
            except TooManySessions as fault:
                self._dialect.refuse(id_, problem("busy", str(fault)))
            else:
                self._dialect.answer(id_, {"sessionId": session.id, **_meta(session, recovered=True)})
                self._read(session, Cursor(session.log, self._sees(session)))

        self._spawn(id_, create)

    def load(self, id_: RequestId, ask: LoadSession) -> None:
        """Show the session from its start, or behind `after`; answered behind the last event that it has now."""
        if (given := self._place(id_, ask.meta)) is None:
            return
        after = given.after or 0
        place = evolve(given, after=after)

        def load(session: Session, found: tuple[bool, Sequence[int]] | None) -> None:
            if (elsewhere := place.elsewhere(session)) is not None:
                self._dialect.refuse(id_, problem("conflict", f"there is no such place in the log: {elsewhere}"))
                return
            log = session.log
            kept, growing = found or (log.trimmed <= after, ())
            mark = log.mark()
            value = _meta(session, recovered=kept, reason="too_old")
            cursor = Cursor.resumed(log, self._sees(session), after, growing)
            attachment = self._dialect.attachments.attach(session, cursor)
            attachment.due.append((mark, encode(result(id_, value))))
            attachment.due.append((mark, self._dialect.available_commands(session)))

        self._with(id_, ask.session_id, place.look, load)

    def resume(self, id_: RequestId, ask: ResumeSession) -> None:
        """Go on in a session: with `after`, behind what the client has; without it, with what comes."""
        if (place := self._place(id_, ask.meta)) is None:
            return
        after = place.after

        def resume(session: Session, found: tuple[bool, Sequence[int]] | None) -> None:
            log = session.log
            kept, growing = found or (after is None or after >= log.trimmed, ())
            reason = place.elsewhere(session) or (None if kept else "too_old")
            self._dialect.answer(id_, _meta(session, recovered=reason is None, reason=reason))
            if reason is None and after is not None:
                self._read(session, Cursor.resumed(log, self._sees(session), after, growing))
            else:
                self._read(session, Cursor.live(log, self._sees(session)))

        self._with(id_, ask.session_id, place.look, resume)

    def _place(self, id_: RequestId, meta: Mapping[str, Any]) -> _Place | None:
        """Return where a client stands in a session's log; None for one that is refused."""
        ours = acp.ours(meta)
        after = ours.get("after")
        if after is not None and (type(after) is not int or after < 0):
            self._dialect.refuse(id_, problem("invalid_params", "after is a whole number, 0 or more"))
            return None
        return _Place(after, ours.get("epoch"))

    def list_page(self, id_: RequestId, ask: ListSessions) -> None:
        """List the sessions that this principal may use, newest first; the cursor is an offset."""
        if not _CURSOR.fullmatch(ask.cursor or "0"):
            self._dialect.refuse(id_, problem("invalid_params", "cursor is the nextCursor of an earlier answer"))
            return
        start = int(ask.cursor or 0)
        principal = self._connection.principal
        owner = None if principal.role is Role.ADMIN else principal.name

        async def list_page() -> None:
            try:
                rows = await self._sessions.rows(owner, skip=start, limit=_PAGE + 1)
            except StoreUnavailable as fault:
                self._dialect.refuse(id_, problem("store_unavailable", str(fault)))
                return
            value: dict[str, Any] = {"sessions": [self._info(row) for row in rows[:_PAGE]]}
            if len(rows) > _PAGE:
                value["nextCursor"] = str(start + _PAGE)
            self._dialect.answer(id_, value)

        self._spawn(id_, list_page)

    def close(self, id_: RequestId, ask: CloseSession) -> None:
        """Cancel what runs and waits in the session, for everyone attached; answered when all that has ended."""
        session = self._dialect.attached(id_, ask.session_id)
        if session is None:
            return
        gateway = self._dialect.gateway
        gateway.turns.stop(session)
        for exec_ in gateway.execs.list():
            if exec_.ask.session is session:
                gateway.execs.stop(exec_, Status.CANCELLED)
        self._dialect.leaving.setdefault(session.id, []).append(id_)
        self._connection.poke()

    def left(self, session: Session) -> list[str]:
        """Return the answer to a `close` whose session has come to rest, and read it no more."""
        if session.id not in self._dialect.leaving or not self._dialect.gateway.rests(session):
            return []
        self._dialect.attachments.drop(session.id)
        return [encode(result(id_, {})) for id_ in self._dialect.leaving.pop(session.id)]

    def _with(
        self,
        id_: RequestId,
        session_id: str,
        look: Callable[[Session], Awaitable[_T]],
        use: Callable[[Session, _T | None], None],
    ) -> None:
        """Use a session, or refuse if there is none for this principal.

        At once where the log has all there is; else with what `look` finds in the store.
        """
        session = self._sessions.find(session_id)
        if session is not None and not (session.log.backed and session.log.trimmed):
            if session.allows(self._connection.principal):
                use(session, None)
            else:
                self._unknown(id_, session_id)
            return

        async def find() -> None:
            try:
                session = await self._sessions.get(session_id)
                if session is None or not session.allows(self._connection.principal):
                    self._unknown(id_, session_id)
                    return
                with session.held():
                    use(session, await look(session))
            except StoreUnavailable as fault:
                self._dialect.refuse(id_, problem("store_unavailable", str(fault)))

        self._spawn(id_, find)

    def _unknown(self, id_: RequestId, session_id: str) -> None:
        self._dialect.refuse(id_, problem("unknown_session", f"there is no session {session_id[:100]!r}"))

    def _spawn(self, id_: RequestId, function: Callable[[], Awaitable[None]]) -> None:
        if not self._connection.spawn(function):
            self._dialect.refuse(id_, problem("busy", "too many requests of this connection wait"))

    def _info(self, row: SessionRow) -> dict[str, Any]:
        session = self._sessions.find(row.id)  # what is in memory may be ahead of the store
        last = row.last if session is None else session.log.last
        busy = session is not None and session.conversation.running is not None
        ours = {"name": row.name, "last": last, "busy": busy}
        return {"sessionId": row.id, "cwd": "/", "title": row.name, "_meta": {acp.OURS: ours}}

    def _sees(self, session: Session) -> Any:
        return sees(self._connection.id, self._connection.principal, session.log)

    def _read(self, session: Session, cursor: Cursor) -> None:
        """The response is in the outbox, so it goes first; then the commands, then what the cursor gives."""
        self._connection.send(self._dialect.available_commands(session))
        self._dialect.attachments.attach(session, cursor)


def _meta(session: Session, *, recovered: bool, reason: str | None = None) -> dict[str, Any]:
    ours: dict[str, Any] = {"recovered": recovered, "epoch": session.epoch, "last": session.log.last}
    if not recovered:
        ours["reason"] = reason
    return {"_meta": {acp.OURS: ours}}
