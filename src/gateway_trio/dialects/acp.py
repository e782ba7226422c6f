"""ACP over WebSocket: for programs.

Each frame is taken apart by `core.jsonrpc`, its parameters by `core.acp`, and the method by one table. A
method's handler is synchronous; the few that must wait (a session's row, a config file) do so in a task of the
connection, and answer when they have it.

A response never overtakes what it answers: that to a prompt is written by the cursor that has just written the
event with the outcome, that to a load by the cursor that has passed what stood in the log. All others go
through the outbox, with their text before them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import gateway_trio
from gateway_trio.core import acp
from gateway_trio.core.commands import Refusal, Role, RunExec, Unknown, decide_exec
from gateway_trio.core.events import Change, Lost, Piece
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
from gateway_trio.core.lifecycle import Lane, Reason
from gateway_trio.core.session import Busy, TurnState
from gateway_trio.desk import Prompted, log_refusal
from gateway_trio.dialects.acp_frames import ROOM, answer, commands_update, frames_of, usage_update
from gateway_trio.dialects.acp_sessions import SessionMethods
from gateway_trio.dialects.attachments import Attachment, Attachments
from gateway_trio.execs import Status
from gateway_trio.runner import Exec, ExecAsk, once
from gateway_trio.sessions import Session, Work
from gateway_trio.turns import Turn

if TYPE_CHECKING:
    from gateway_trio.connection import Connection

__all__ = ["AcpDialect"]

#: A client comes back after so many milliseconds, each after another time, so that they do not all come at once.
_RECONNECT_MS = (200, 2000)

_KEY_CHARS = 128


class AcpDialect:
    """One `/acp` connection."""

    def __init__(self, connection: Connection, query: str) -> None:  # noqa: ARG002 - there is none for `/acp`
        self.connection = connection
        self.gateway = connection.gateway
        self.attachments = Attachments(connection, ROOM, self._render, self._idle)
        self._initialized = False
        self._speaks_ours = False
        self._waiting: dict[str, list[RequestId]] = {}  #: turn or exec → the prompts that it answers
        self._asked: dict[RequestId, Work] = {}  #: a prompt that waits → its turn or exec
        self.leaving: dict[str, list[RequestId]] = {}  #: session → each `session/close` that waits for its rest
        self._sessions = sessions = SessionMethods(self)
        self._methods: Mapping[str, Callable[[RequestId, Any], None]] = {
            "authenticate": self._authenticate,
            "session/new": sessions.new,
            "session/load": sessions.load,
            "session/resume": sessions.resume,
            "session/list": sessions.list_page,
            "session/close": sessions.close,
            "session/prompt": self._prompt,
            "_gateway-trio/status": lambda id_, _: self.answer(id_, dict(self.gateway.status())),
            "_gateway-trio/exec": self._exec,
            "_gateway-trio/kill": self._kill,
            "_gateway-trio/drain": self._drain,
            "_gateway-trio/undrain": self._undrain,
            "_gateway-trio/restart": self._restart,
        }

    async def start(self) -> None:
        """Nothing: the client begins."""

    # --- in ---

    def received(self, text: str) -> None:
        message = parse(text)
        match message:
            case Request(id_, method, params):
                self._request(id_, method, params)
            case Notification(method, params):
                self._notified(method, params)
            case Response():
                pass  # to nothing that we asked
            case (id_, fault):
                self.refuse(id_, fault)

    def _request(self, id_: RequestId, method: str, params: Any) -> None:
        if method == "initialize":
            self._initialize(id_, params)
        elif not self._initialized:
            self.refuse(id_, problem("not_initialized", "initialize comes first"))
        elif id_ in self._asked:
            self.refuse(id_, problem("invalid_request", f"the request {id_!r} is not answered yet"))
        elif method != "session/prompt" and not self.gateway.coordinator.admits(Lane.CONTROL):
            self.refuse(id_, problem("draining", "the gateway closes", extra={"reasons": self._reasons()}))
        elif method not in self._methods:
            self.refuse(id_, problem("method_not_found", f"there is no method {method[:100]!r}"))
        elif isinstance(ask := acp.structure(acp.PARAMS[method], params), Problem):
            self.refuse(id_, ask)
        else:
            self._methods[method](id_, ask)

    def _notified(self, method: str, params: Any) -> None:
        """Notifications are never answered, whatever is wrong with them."""
        if not self._initialized:
            return
        if method == "session/cancel" and isinstance(ask := acp.structure(acp.Cancel, params), acp.Cancel):
            self._cancel(ask.session_id)
        elif method == "$/cancel_request":
            cancel = acp.structure(acp.CancelRequest, params)
            if isinstance(cancel, acp.CancelRequest) and cancel.request_id in self._asked:
                self._cancel_work(self._asked[cancel.request_id])

    def answer(self, id_: RequestId, value: Any) -> None:
        self.connection.send(encode(result(id_, value)))

    def refuse(self, id_: RequestId, fault: Problem) -> None:
        self.connection.send(encode(error(id_, fault)))

    # --- the methods that belong to no session ---

    def _initialize(self, id_: RequestId, params: Any) -> None:
        ask = acp.structure(acp.Initialize, params)
        if isinstance(ask, Problem):
            self.refuse(id_, ask)
            return
        if self._initialized:
            self.refuse(id_, problem("invalid_request", "this connection is initialized"))
            return
        self._initialized = True
        meta = ask.client_capabilities.get("_meta")
        self._speaks_ours = isinstance(meta, dict) and acp.OURS in meta
        self.answer(id_, acp.initialized(gateway_trio.__version__, []))
        if (notice := self.phase_notice()) is not None:
            self.connection.send(notice)

    def _authenticate(self, id_: RequestId, ask: acp.Authenticate) -> None:
        self.refuse(id_, problem("invalid_params", f"there is no authentication method {ask.method_id[:100]!r}"))

    def _exec(self, id_: RequestId, ask: acp.ExecAsk) -> None:
        gateway, principal = self.gateway, self.connection.principal
        verdict = decide_exec(
            ask.name,
            ask.args,
            catalog=gateway.config.catalog,
            role=principal.role,
            admits=gateway.coordinator.admits,
        )
        match verdict:
            case Unknown():
                self.refuse(id_, problem("invalid_params", verdict.notice, admitted=False))
            case Refusal():
                log_refusal(verdict, principal.name)
                self.refuse(id_, gateway.desk.refusal(verdict))
            case RunExec(command, words):
                exec_ = gateway.execs.admit(ExecAsk(command, words, principal.name, sender=self.connection.id))
                if isinstance(exec_, Problem):
                    self.refuse(id_, exec_)
                    return
                self._asked[id_] = exec_
                exec_.refused.append(partial(self._exec_refused, id_))
                exec_.finished.append(partial(self._exec_finished, id_))

    def _exec_refused(self, id_: RequestId, fault: Problem) -> None:
        self._asked.pop(id_, None)
        self.refuse(id_, fault)

    def _exec_finished(self, id_: RequestId, exec_: Exec) -> None:
        self._asked.pop(id_, None)
        assert exec_.ended is not None  # noqa: S101 - that is why this is called
        if exec_.ended.reason == "draining":
            self.connection.send(answer(id_, exec_.ended, self._reasons()))
        else:
            self.answer(id_, once(exec_))

    def _kill(self, id_: RequestId, ask: acp.KillAsk) -> None:
        killed = self.gateway.control.kill(self.connection.principal, ask.id)
        self.refuse(id_, killed) if isinstance(killed, Problem) else self.answer(id_, {})

    def _admin(self, id_: RequestId) -> bool:
        if self.connection.principal.role is Role.ADMIN:
            return True
        self.refuse(id_, problem("forbidden", "this takes the role admin"))
        return False

    def _drain(self, id_: RequestId, ask: acp.DrainAsk) -> None:
        if self._admin(id_):
            self.gateway.coordinator.drain(Reason.OPERATOR, by=self.connection.principal.name, why=ask.why[:1000])
            self.answer(id_, dict(self.gateway.status()))

    def _undrain(self, id_: RequestId, ask: acp.UndrainAsk) -> None:
        if not self._admin(id_):
            return
        if ask.reason not in {reason.value for reason in Reason}:
            self.refuse(id_, problem("invalid_params", f"params.reason: there is no reason {ask.reason[:100]!r}"))
            return
        self.gateway.control.undrain(Reason(ask.reason))
        self.answer(id_, dict(self.gateway.status()))

    def _restart(self, id_: RequestId, _: acp.Nothing) -> None:
        if self._admin(id_):
            self.gateway.control.restart(
                self.connection.principal.name,
                lambda message: self.answer(id_, {"message": message}),
                lambda fault: self.refuse(id_, fault),
            )

    # --- prompts ---

    def attached(self, id_: RequestId, session_id: str) -> Session | None:
        """Return the session, if this connection made, loaded or resumed it; else refuse."""
        attachment = self.attachments.get(session_id)
        if attachment is None:
            why = f"this connection has no session {session_id[:100]!r}; make, load or resume it first"
            self.refuse(id_, problem("unknown_session", why))
            return None
        return attachment.session

    def _prompt(self, id_: RequestId, ask: acp.PromptAsk) -> None:
        session = self.attached(id_, ask.session_id)
        if session is None:
            return
        prompted = _prompted(session, ask, self.connection)
        if isinstance(prompted, Problem):
            self.refuse(id_, prompted)
        else:
            self.gateway.desk.submit(_PromptAsker(self, id_, session), prompted)

    def follow(self, id_: RequestId, session: Session, work: Work) -> None:
        """Answer this request when the cursor has shown the outcome; at once if it has."""
        attachment = self.attachments.get(session.id)
        if work.ended is not None and attachment is not None and 0 < work.ended_at < attachment.cursor.next:
            self.connection.send(answer(id_, work.ended, self._reasons()))
            return
        self._waiting.setdefault(work.id, []).append(id_)
        self._asked[id_] = work

    def not_admitted(self, id_: RequestId, fault: Problem) -> None:
        """Refuse a prompt, also one that was followed already and could not be stored."""
        work = self._asked.pop(id_, None)
        if work is not None:
            self._waiting.pop(work.id, None)
        self.refuse(id_, fault)

    def _cancel(self, session_id: str) -> None:
        """`session/cancel`: the running turn, or else what this connection runs in the session."""
        attachment = self.attachments.get(session_id)
        if attachment is None:
            return
        running = self.gateway.turns.current(attachment.session)
        if running is not None:
            self._cancel_work(running)
            return
        for exec_ in self.gateway.execs.list():
            if exec_.ask.session is attachment.session and exec_.ask.sender == self.connection.id:
                self._cancel_work(exec_)

    def _cancel_work(self, work: Work) -> None:
        if isinstance(work, Turn):
            self.gateway.turns.cancel(work, TurnState.CANCELLED, "cancelled by its user")
        elif isinstance(work, Exec):
            self.gateway.execs.stop(work, Status.CANCELLED)

    # --- out ---

    def pull(self) -> str | None:
        return self.attachments.pull()

    def _render(self, attachment: Attachment, piece: Piece | Lost) -> list[str]:
        frames = frames_of(attachment.session.id, piece)
        if isinstance(piece, Piece) and isinstance(change := piece.entry.body, Change) and change.ends:
            for id_ in self._waiting.pop(change.id, ()):
                self._asked.pop(id_, None)
                frames.append(answer(id_, change, self._reasons()))
        return frames

    def _idle(self, attachment: Attachment) -> list[str]:
        if overdue := self._overdue(attachment):
            return overdue
        usage = attachment.session.usage
        if usage is None or usage is attachment.usage:
            return self._sessions.left(attachment.session)
        attachment.usage = usage
        return [usage_update(attachment.session.id, usage)]

    def _overdue(self, attachment: Attachment) -> list[str]:
        """Return the answers whose outcomes this cursor did not show: trimmed, or before where it began."""
        frames = []
        for id_, work in list(self._asked.items()):
            change = work.ended
            if work.session is attachment.session and change and 0 < work.ended_at < attachment.cursor.next:
                self._waiting.pop(work.id, None)
                del self._asked[id_]
                frames.append(answer(id_, change, self._reasons()))
        return frames

    def available_commands(self, session: Session) -> str:
        return commands_update(session.id, self.gateway.config.catalog, self.connection.principal.role)

    def phase_notice(self) -> str | None:
        if not self._initialized or not self._speaks_ours:
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
        self.attachments.clear()

    def _reasons(self) -> list[str]:
        return sorted(reason.value for reason in self.gateway.coordinator.state.reasons)


class _PromptAsker:
    """The way back to one `session/prompt`."""

    def __init__(self, dialect: AcpDialect, id_: RequestId, session: Session) -> None:
        self._dialect = dialect
        self._id = id_
        self._session = session

    def notice(self, text: str) -> None:
        """A control command's answer: its text first, then the end of the turn that was none."""
        kind, message_id = "agent_message_chunk", f"n{random.getrandbits(48):012x}"
        chunks = [
            encode(acp.chunk(self._session.id, kind, text[at : at + ROOM], message_id))
            for at in range(0, max(len(text), 1), ROOM)
        ]
        self._dialect.connection.send(*chunks, encode(result(self._id, {"stopReason": "end_turn"})))

    def refuse(self, problem: Problem) -> None:
        self._dialect.not_admitted(self._id, problem)

    def follow(self, work: Work) -> None:
        self._dialect.follow(self._id, self._session, work)


def _prompted(session: Session, ask: acp.PromptAsk, sender: Connection) -> Prompted | Problem:
    """Read a prompt's blocks and what is ours in its `_meta`."""
    texts: list[str] = []
    for number, block in enumerate(ask.prompt):
        text = _text_of(block)
        if text is None:
            why = f"params.prompt[{number}]: a block of type {str(block.get('type'))[:50]!r} is not taken here"
            return problem("invalid_params", why, admitted=False)
        texts.append(text)
    if not texts:
        return problem("invalid_params", "params.prompt is empty", admitted=False)
    ours = acp.ours(ask.meta)
    key, busy = ours.get("key"), ours.get("onBusy")
    if key is not None and not (isinstance(key, str) and 0 < len(key) <= _KEY_CHARS):
        return problem("invalid_params", f"key is a string of 1 to {_KEY_CHARS} characters", admitted=False)
    if busy is not None and busy not in {policy.value for policy in Busy}:
        return problem("invalid_params", "onBusy is queue, interrupt or refuse", admitted=False)
    blocks = tuple(ask.prompt)
    first = texts[0] if blocks[0].get("type") == "text" else ""
    return Prompted(session, "\n".join(texts), sender, blocks, first, key, Busy(busy) if busy else None)


def _text_of(block: Mapping[str, Any]) -> str | None:
    """Return what a block says to an agent that reads text; None for one that says nothing so."""
    match block:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "resource_link", "uri": str(uri)}:
            return uri
        case {"type": "resource", "resource": {"text": str(text)}}:
            return text
    return None
