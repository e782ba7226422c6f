"""ACP over WebSocket: for programs.

Each frame is taken apart by `core.jsonrpc`, its parameters by `core.acp_params`, and the method by one table,
which has the methods of `acp_sessions`, `acp_prompts` and `acp_operations`. A method's handler is synchronous;
the few that must wait (a session's row, a config file) do so in a task of the connection, and answer when they
have it. What we ask of the client is in `acp_permissions`.

A response never overtakes what it answers: that to a prompt is written by the cursor that has just written the
event with the outcome, that to a load by the cursor that has passed what stood in the log. All others go
through the outbox, with their text before them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import gateway_trio
from gateway_trio.core import acp
from gateway_trio.core.acp_params import PARAMS, Authenticate, Cancel, CancelRequest, Initialize, structure
from gateway_trio.core.cursor import Lost, Piece
from gateway_trio.core.events import Change, Entry
from gateway_trio.core.jsonrpc import (
    Close,
    Notification,
    Problem,
    Request,
    RequestId,
    Response,
    encode,
    error,
    notification,
    parse,
    problem,
    result,
)
from gateway_trio.core.permission import Asked
from gateway_trio.core.phases import Lane
from gateway_trio.dialects.acp_frames import ROOM, commands_update, usage_update
from gateway_trio.dialects.acp_operations import OperatorMethods
from gateway_trio.dialects.acp_permissions import PermissionMethods
from gateway_trio.dialects.acp_prompts import PromptMethods
from gateway_trio.dialects.acp_sessions import SessionMethods
from gateway_trio.dialects.attachments import Attachment, Attachments
from gateway_trio.sessions import Session

if TYPE_CHECKING:
    from gateway_trio.connection import Connection

__all__ = ["AcpDialect"]

#: A client comes back after so many milliseconds, each after another time, so that they do not all come at once.
_RECONNECT_MS = (200, 2000)


class AcpDialect:
    """One `/acp` connection."""

    def __init__(self, connection: Connection, query: str) -> None:  # noqa: ARG002 - there is none for `/acp`
        self.connection = connection
        self.gateway = connection.gateway
        self.attachments = Attachments(connection, ROOM, self._render, self._idle)
        self._initialized = False
        self._speaks_ours = False
        self.prompts = prompts = PromptMethods(self)
        self._permissions = PermissionMethods(connection)
        operator = OperatorMethods(self)
        self.leaving: dict[str, list[RequestId]] = {}  #: session → each `session/close` that waits for its rest
        self._sessions = sessions = SessionMethods(self)
        self._methods: Mapping[str, Callable[[RequestId, Any], None]] = {
            "authenticate": self._authenticate,
            "session/new": sessions.new,
            "session/load": sessions.load,
            "session/resume": sessions.resume,
            "session/list": sessions.list_page,
            "session/close": sessions.close,
            "session/prompt": prompts.prompt,
            "_gateway-trio/status": operator.status,
            "_gateway-trio/exec": operator.exec,
            "_gateway-trio/kill": operator.kill,
            "_gateway-trio/drain": operator.drain,
            "_gateway-trio/undrain": operator.undrain,
            "_gateway-trio/restart": operator.restart,
        }

    async def start(self) -> None:
        """Nothing: the client begins."""

    # --- in ---

    def received(self, message: str | bytes) -> None:
        """Take a frame. A binary one is ignored, as ACP says of its transport."""
        if isinstance(message, bytes):
            return
        match parse(message):
            case Request(id_, method, params):
                self._request(id_, method, params)
            case Notification(method, params):
                self._notified(method, params)
            case Response(id_, value, fault):
                self._permissions.answered(id_, value, fault)
            case (id_, fault):
                self.refuse(id_, fault)

    def _request(self, id_: RequestId, method: str, params: Any) -> None:
        if method == "initialize":
            self._initialize(id_, params)
        elif not self._initialized:
            self.refuse(id_, problem("not_initialized", "initialize comes first"))
        elif self.connection.identity is None and method != "authenticate":
            self.refuse(id_, problem("auth_required", "authenticate comes first"))
        elif id_ in self.prompts.asked:
            self.refuse(id_, problem("invalid_request", f"the request {id_!r} is not answered yet"))
        elif method != "session/prompt" and not self.gateway.coordinator.admits(Lane.CONTROL):
            self.refuse(id_, problem("draining", "the gateway closes", extra={"reasons": self.reasons()}))
        elif method not in self._methods:
            self.refuse(id_, problem("method_not_found", f"there is no method {method[:100]!r}"))
        elif isinstance(ask := structure(PARAMS[method], params), Problem):
            self.refuse(id_, ask)
        else:
            self._methods[method](id_, ask)

    def _notified(self, method: str, params: Any) -> None:
        """Notifications are never answered, whatever is wrong with them."""
        if not self._initialized:
            return
        if method == "session/cancel" and isinstance(ask := structure(Cancel, params), Cancel):
            self.prompts.cancel(ask.session_id)
        elif method == "$/cancel_request":
            cancel = structure(CancelRequest, params)
            if isinstance(cancel, CancelRequest):
                self.prompts.cancel_request(cancel.request_id)

    def answer(self, id_: RequestId, value: Any) -> None:
        self.connection.send(encode(result(id_, value)))

    def refuse(self, id_: RequestId, fault: Problem) -> None:
        self.gateway.coordinator.tally.refused(fault.reason)
        self.connection.send(encode(error(id_, fault)))

    def attached(self, id_: RequestId, session_id: str) -> Session | None:
        """Return the session, if this connection made, loaded or resumed it; else refuse."""
        attachment = self.attachments.get(session_id)
        if attachment is None:
            why = f"this connection has no session {session_id[:100]!r}; make, load or resume it first"
            self.refuse(id_, problem("unknown_session", why))
            return None
        return attachment.session

    # --- who is there ---

    def _initialize(self, id_: RequestId, params: Any) -> None:
        ask = structure(Initialize, params)
        if isinstance(ask, Problem):
            self.refuse(id_, ask)
            return
        if self._initialized:
            self.refuse(id_, problem("invalid_request", "this connection is initialized"))
            return
        self._initialized = True
        meta = ask.client_capabilities.get("_meta")
        self._speaks_ours = isinstance(meta, dict) and acp.OURS in meta
        if isinstance(meta, dict) and acp.ours(meta).get("counts") is True:
            self.gateway.counting.add(self.connection)
        known = self.connection.identity is not None
        methods = [] if known else [acp.TOKEN_METHOD]
        most = self.connection.max_message_bytes
        self.answer(id_, acp.initialized(gateway_trio.__version__, methods, most))
        self._tell_phase()

    def _authenticate(self, id_: RequestId, ask: Authenticate) -> None:
        if self.connection.identity is not None or ask.method_id != acp.TOKEN_METHOD["id"]:
            why = f"there is no authentication method {ask.method_id[:100]!r} for this connection"
            self.refuse(id_, problem("invalid_params", why))
            return
        token = acp.ours(ask.meta).get("token")
        found = self.gateway.entrance.check(token if isinstance(token, str) else None, self.connection.address)
        if isinstance(found, Problem):
            self.refuse(id_, found)
            return
        self.connection.authenticated(found)
        self.answer(id_, {})
        self._tell_phase()

    def _tell_phase(self) -> None:
        if (notice := self.phase_notice()) is not None:
            self.connection.send(notice)

    # --- out ---

    def pull(self) -> str | None:
        return self.attachments.pull()

    @property
    def fetching(self) -> bool:
        return self.attachments.fetching

    def _render(self, attachment: Attachment, piece: Piece | Lost) -> list[str]:
        ended = self._permissions.ended()
        session = attachment.session
        match piece:
            case Piece(Entry(body=Asked() as asked, open=True) as entry):
                return [*ended, *self._permissions.ask(session, entry, asked)]
            case Piece(Entry(body=Change(ends=True) as change)):
                return [
                    *ended,
                    *self.gateway.frames.frames_of(session, piece),
                    *self.prompts.ended(change),
                ]
        return [*ended, *self.gateway.frames.frames_of(session, piece)]

    def _idle(self, attachment: Attachment) -> list[str]:
        if overdue := self._permissions.ended() + self.prompts.overdue(attachment):
            return overdue
        usage = attachment.session.usage
        if usage is None or usage is attachment.usage:
            return self._sessions.left(attachment.session)
        attachment.usage = usage
        return [usage_update(attachment.session.id, usage)]

    def available_commands(self, session: Session) -> str:
        return commands_update(session.id, self.gateway.config.catalog, self.connection.principal.role)

    def commands_changed(self) -> None:
        for session in self.attachments.sessions():
            self.connection.send(self.available_commands(session))

    def phase_notice(self) -> str | None:
        if not self._initialized or not self._speaks_ours or self.connection.identity is None:
            return None
        status = self.gateway.coordinator.status()
        told = ("phase", "reasons", "remainingMs", "turns", "execs", "accepts", "revocable")
        return encode(notification("_gateway-trio/phase", {name: status[name] for name in told}))

    def goodbye(self, close: Close) -> str | None:
        if not self._initialized or not self._speaks_ours:
            return None
        after = random.randint(*_RECONNECT_MS) if close.come_back else None  # noqa: S311 - spreads load, guards nothing
        return encode(notification("_gateway-trio/goodbye", {"code": close.code, "reconnectAfterMs": after}))

    def detach(self) -> None:
        self.gateway.counting.discard(self.connection)
        self.attachments.clear()

    def reasons(self) -> list[str]:
        """Return those of the drain, in the words of the wire."""
        return sorted(reason.value for reason in self.gateway.coordinator.state.reasons)
