"""The methods of ACP that make, find and leave sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway_trio.core import acp
from gateway_trio.core.cursor import Cursor
from gateway_trio.core.jsonrpc import RequestId, encode, problem, result
from gateway_trio.execs import Status
from gateway_trio.sessions import Session, TooManySessions
from gateway_trio.store import StoreUnavailable
from gateway_trio.visible import sees

if TYPE_CHECKING:
    from gateway_trio.dialects.acp import AcpDialect

__all__ = ["SessionMethods"]

#: Sessions in one answer to `session/list`.
_PAGE = 100


class SessionMethods:
    """`session/new`, `load`, `resume`, `list` and `close` of one connection."""

    def __init__(self, dialect: AcpDialect) -> None:
        self._dialect = dialect
        self._connection = dialect.connection
        self._sessions = dialect.gateway.sessions

    def new(self, id_: RequestId, _: acp.NewSession) -> None:
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

        if not self._connection.spawn(create):
            self._dialect.refuse(id_, problem("busy", "too many requests of this connection wait"))

    def load(self, id_: RequestId, ask: acp.LoadSession) -> None:
        """Show the session from its start; answered behind the last event that it has now."""
        session = self._find(id_, ask.session_id)
        if session is None:
            return
        mark = session.log.mark()
        value = _meta(session, recovered=session.log.trimmed == 0, reason="too_old")
        attachment = self._dialect.attachments.attach(session, Cursor(session.log, self._sees(session)))
        attachment.due.append((mark, encode(result(id_, value))))
        attachment.due.append((mark, self._dialect.available_commands(session)))

    def resume(self, id_: RequestId, ask: acp.ResumeSession) -> None:
        """Go on in a session: with `after`, behind what the client has; without it, with what comes."""
        session = self._find(id_, ask.session_id)
        if session is None:
            return
        log, ours = session.log, acp.ours(ask.meta)
        after, epoch = ours.get("after"), ours.get("epoch")
        if after is not None and (type(after) is not int or after < 0):
            self._dialect.refuse(id_, problem("invalid_params", "after is a whole number, 0 or more"))
            return
        reason = None
        if epoch is not None and epoch != session.epoch:
            reason = "epoch"
        elif after is not None and after > log.last:
            reason = "too_new"
        elif after is not None and after < log.trimmed:
            reason = "too_old"
        self._dialect.answer(id_, _meta(session, recovered=reason is None, reason=reason))
        if reason is None and after is not None:
            self._read(session, Cursor.resumed(log, self._sees(session), after))
        else:
            self._read(session, Cursor.live(log, self._sees(session)))

    def list_page(self, id_: RequestId, ask: acp.ListSessions) -> None:
        """List the sessions that this principal may use, newest first; the cursor is an offset."""
        start = int(ask.cursor) if ask.cursor is not None and ask.cursor.isdecimal() else 0
        allowed = [s for s in self._sessions if s.allows(self._connection.principal)][::-1]
        page = allowed[start : start + _PAGE]
        value: dict[str, Any] = {"sessions": [_info(session) for session in page]}
        if start + _PAGE < len(allowed):
            value["nextCursor"] = str(start + _PAGE)
        self._dialect.answer(id_, value)

    def close(self, id_: RequestId, ask: acp.CloseSession) -> None:
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
        if session.id not in self._dialect.leaving or not self._rests(session):
            return []
        self._dialect.attachments.drop(session.id)
        return [encode(result(id_, {})) for id_ in self._dialect.leaving.pop(session.id)]

    def _rests(self, session: Session) -> bool:
        gateway = self._dialect.gateway
        execs = any(exec_.ask.session is session for exec_ in gateway.execs.list())
        return gateway.turns.rests(session) and not execs

    def _find(self, id_: RequestId, session_id: str) -> Session | None:
        session = self._sessions.find(session_id)
        if session is None or not session.allows(self._connection.principal):
            self._dialect.refuse(id_, problem("unknown_session", f"there is no session {session_id[:100]!r}"))
            return None
        return session

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


def _info(session: Session) -> dict[str, Any]:
    ours = {"name": session.name, "last": session.log.last, "busy": session.conversation.running is not None}
    return {"sessionId": session.id, "cwd": "/", "title": session.name, "_meta": {acp.OURS: ours}}
