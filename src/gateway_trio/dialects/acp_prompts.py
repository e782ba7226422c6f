"""Prompts over ACP: what became of each, the answers that wait for an outcome, and cancelling.

A request waits for a turn or an exec (`asked`), and is answered by the cursor that has just shown the outcome
(`ended`). Where a cursor never shows it, because it was trimmed or lies before where the cursor began, `overdue`
finds the request when there is nothing else to send.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway_trio.core import acp
from gateway_trio.core.acp_params import PromptAsk
from gateway_trio.core.events import Change
from gateway_trio.core.jsonrpc import Problem, RequestId, encode, problem, result
from gateway_trio.core.session import Busy, TurnState
from gateway_trio.desk import Prompted
from gateway_trio.dialects.acp_frames import ROOM, answer
from gateway_trio.dialects.attachments import Attachment
from gateway_trio.execs import Status
from gateway_trio.quick import Exec
from gateway_trio.sessions import Session, Work
from gateway_trio.turn import Turn

if TYPE_CHECKING:
    from gateway_trio.connection import Connection
    from gateway_trio.dialects.acp import AcpDialect

__all__ = ["PromptMethods"]

_KEY_CHARS = 128


class PromptMethods:
    """`session/prompt`, `session/cancel` and `$/cancel_request` of one connection."""

    def __init__(self, dialect: AcpDialect) -> None:
        self.asked: dict[RequestId, Work] = {}  #: a request that waits → its turn or exec
        self._dialect = dialect
        self._gateway = dialect.gateway
        self._waiting: dict[str, list[RequestId]] = {}  #: turn or exec → the prompts that it answers

    def prompt(self, id_: RequestId, ask: PromptAsk) -> None:
        session = self._dialect.attached(id_, ask.session_id)
        if session is None:
            return
        prompted = _prompted(session, ask, self._dialect.connection)
        if isinstance(prompted, Problem):
            self._dialect.refuse(id_, prompted)
        else:
            self._gateway.desk.submit(_PromptAsker(self, self._dialect, id_, session), prompted)

    def follow(self, id_: RequestId, session: Session, work: Work) -> None:
        """Answer this request when the cursor has shown the outcome; at once if it has."""
        attachment = self._dialect.attachments.get(session.id)
        if work.ended is not None and attachment is not None and 0 < work.ended_at < attachment.cursor.next:
            self._dialect.connection.send(answer(id_, work.ended, self._dialect.reasons()))
            return
        self._waiting.setdefault(work.id, []).append(id_)
        self.asked[id_] = work

    def not_admitted(self, id_: RequestId, fault: Problem) -> None:
        """Refuse a prompt, also one that was followed already and could not be stored."""
        work = self.asked.pop(id_, None)
        if work is not None:
            self._waiting.pop(work.id, None)
        self._dialect.refuse(id_, fault)

    def cancel(self, session_id: str) -> None:
        """`session/cancel`: the running turn, or else what this connection runs in the session."""
        attachment = self._dialect.attachments.get(session_id)
        if attachment is None:
            return
        running = self._gateway.turns.current(attachment.session)
        if running is not None:
            self._cancel_work(running)
            return
        for exec_ in self._gateway.execs.list():
            if exec_.ask.session is attachment.session and exec_.ask.sender == self._dialect.connection.id:
                self._cancel_work(exec_)

    def cancel_request(self, id_: RequestId) -> None:
        """`$/cancel_request`: exactly this one, if it still waits."""
        if id_ in self.asked:
            self._cancel_work(self.asked[id_])

    def _cancel_work(self, work: Work) -> None:
        if isinstance(work, Turn):
            self._gateway.turns.cancel(work, TurnState.CANCELLED, "cancelled by its user")
        elif isinstance(work, Exec):
            self._gateway.execs.stop(work, Status.CANCELLED)

    def ended(self, change: Change) -> list[str]:
        """Return the answers of all prompts that this outcome ends."""
        frames = []
        for id_ in self._waiting.pop(change.id, ()):
            self.asked.pop(id_, None)
            frames.append(answer(id_, change, self._dialect.reasons()))
        return frames

    def overdue(self, attachment: Attachment) -> list[str]:
        """Return the answers whose outcomes this cursor did not show: trimmed, or before where it began."""
        frames = []
        for id_, work in list(self.asked.items()):
            change = work.ended
            if work.session is attachment.session and change and 0 < work.ended_at < attachment.cursor.next:
                self._waiting.pop(work.id, None)
                del self.asked[id_]
                frames.append(answer(id_, change, self._dialect.reasons()))
        return frames


class _PromptAsker:
    """The way back to one `session/prompt`."""

    def __init__(self, prompts: PromptMethods, dialect: AcpDialect, id_: RequestId, session: Session) -> None:
        self._prompts = prompts
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
        self._prompts.not_admitted(self._id, problem)

    def follow(self, work: Work) -> None:
        self._prompts.follow(self._id, self._session, work)


def _prompted(session: Session, ask: PromptAsk, sender: Connection) -> Prompted | Problem:
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
    if busy is not None and busy not in [policy.value for policy in Busy]:  # no set: it may be a list
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
