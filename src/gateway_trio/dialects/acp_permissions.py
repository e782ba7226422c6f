"""Permission requests over ACP: what a connection was asked, and what it answers.

A connection is asked as its cursor comes to a request that is open. Each asking has an id of its own, which no
other connection has, so an answer can only be to what this connection was asked: one that comes late, to what an
earlier connection was asked, is an answer to nothing. When a request has ended, however it did, whoever has not
answered is told by `$/cancel_request`, as soon as there is anything to pull.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from attrs import frozen

from gateway_trio.core import acp
from gateway_trio.core.events import Entry
from gateway_trio.core.jsonrpc import RequestId, encode, notification, request
from gateway_trio.core.permission import Asked, Decision, chosen
from gateway_trio.dialects.acp_frames import meta
from gateway_trio.log import get_logger
from gateway_trio.sessions import Session

if TYPE_CHECKING:
    from gateway_trio.connection import Connection

__all__ = ["PermissionMethods"]

log = get_logger("acp")


@frozen(eq=False)
class _Asking:
    session: Session
    entry: Entry
    asked: Asked


class PermissionMethods:
    """`session/request_permission` of one connection: at most one for each request that is open."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: dict[RequestId, _Asking] = {}

    def ask(self, session: Session, entry: Entry, asked: Asked) -> list[str]:
        """Return the request to send; before it, the end of an earlier one for the same."""
        frames = self._cancel([id_ for id_, asking in self._waiting.items() if asking.entry is entry])
        id_ = "ask-" + secrets.token_hex(6)
        self._waiting[id_] = _Asking(session, entry, asked)
        about = {**meta(entry), "permissionId": asked.id}
        tool = acp.with_meta(asked.tool, about)
        options = [{"optionId": o.id, "name": o.name, "kind": o.kind} for o in asked.options]
        params = {"sessionId": session.id, "toolCall": tool, "options": options}
        return [*frames, encode(request(id_, "session/request_permission", params))]

    def ended(self) -> list[str]:
        """Return the ends of those that this connection has not answered and nobody need answer any more."""
        return self._cancel([id_ for id_, asking in self._waiting.items() if not asking.entry.open])

    def _cancel(self, ids: list[RequestId]) -> list[str]:
        for id_ in ids:
            del self._waiting[id_]
        return [encode(notification("$/cancel_request", {"requestId": id_})) for id_ in ids]

    def answered(self, id_: RequestId, value: Any, fault: Any) -> None:
        """Take what a client answers. What selects no option of an open request changes nothing."""
        asking = self._waiting.pop(id_, None)
        if asking is None:
            return
        option = None if fault is not None else chosen(value, asking.asked.options)
        pending = asking.session.requests.get(asking.asked.id)
        if option is None or pending is None:
            log.debug("no answer", connection=self._connection.id, permission=asking.asked.id)
            return
        pending.settle(Decision("selected", option, self._connection.principal.name))
