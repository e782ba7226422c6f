"""Plain text over WebSocket: for `wscat`, `websocat` and a person.

Each text frame is a prompt or a command, each answer one text frame. A line that starts with `· ` is a notice.
A message is sent whole, once it is closed; so an exec's answer need not wait for a turn's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from gateway_trio.core.cursor import Cursor, Lost, Piece
from gateway_trio.core.events import Change, Kind, Message, Prompt, Update
from gateway_trio.core.jsonrpc import CLOSES, Close, Problem
from gateway_trio.core.permission import Answered, Asked
from gateway_trio.core.phases import Phase
from gateway_trio.core.text import short
from gateway_trio.desk import Prompted
from gateway_trio.dialects.attachments import Attachment, Attachments
from gateway_trio.registry import TooManySessions
from gateway_trio.sessions import Work
from gateway_trio.store import StoreUnavailable
from gateway_trio.visible import sees

if TYPE_CHECKING:
    from gateway_trio.connection import Connection

__all__ = ["ChatDialect"]

#: Characters in a frame: at most 4 bytes each, and so under 256 KiB.
_ROOM = 60_000

#: Characters of a prompt that a notice quotes.
_QUOTED = 40

_SPOKEN = frozenset({Kind.ANSWER, Kind.OUTPUT})


class ChatDialect:
    """One `/chat` connection, on the session that its query names (`?session=NAME`, default `main`)."""

    def __init__(self, connection: Connection, query: str) -> None:
        self._connection = connection
        self._gateway = connection.gateway
        self._name = parse_qs(query).get("session", ["main"])[-1][:128]
        self._attachments = Attachments(connection, _ROOM, self._render)
        self._attachment: Attachment | None = None
        self._told = Phase.OPEN

    async def start(self) -> None:
        """Find or make the session, and read it from its end."""
        sessions, principal = self._gateway.sessions, self._connection.principal
        try:
            session = await sessions.named(principal, self._name) or await sessions.create(principal, self._name)
        except (StoreUnavailable, TooManySessions) as fault:
            self._connection.send(f"There is no session for you now: {fault}")
            self._connection.close(CLOSES["internal"], pull_to_end=True)
            return
        cursor = Cursor.live(session.log, sees(self._connection.id, principal, session.log), whole=True)
        self._attachment = self._attachments.attach(session, cursor)
        self._connection.announce()

    def received(self, message: str | bytes) -> None:
        """Take a prompt or a command. An empty frame is none, nor is a binary one."""
        if isinstance(message, str) and message.strip() and self._attachment is not None:
            self._gateway.desk.submit(self, Prompted(self._attachment.session, message, sender=self._connection))

    # --- how a prompt is answered ---

    def notice(self, text: str) -> None:
        """A control command's answer."""
        for at in range(0, max(len(text), 1), _ROOM):
            self._connection.send(text[at : at + _ROOM])

    def refuse(self, problem: Problem) -> None:
        """A refusal, in words."""
        self._gateway.coordinator.tally.refused(problem.reason)
        self._connection.send(problem.message + _again(problem.retry_after_ms))

    def follow(self, work: Work) -> None:
        """The cursor shows it."""

    # --- what is sent ---

    def pull(self) -> str | None:
        return self._attachments.pull()

    @property
    def fetching(self) -> bool:
        return self._attachments.fetching

    def phase_notice(self) -> str | None:
        """Tell of a drain once, and of its end once."""
        state = self._gateway.coordinator.state
        if state.phase is Phase.DRAINING:
            self._told = state.phase
            reasons = ", ".join(sorted(reason.value for reason in state.reasons))
            left = self._gateway.coordinator.remaining_ms()
            end = "" if left is None else f"; what runs has {left / 1000:.0f} s"
            return f"· draining ({reasons}): no new prompts, quick commands still run{end}"
        if state.phase is Phase.OPEN and self._told is Phase.DRAINING:
            self._told = state.phase
            return "· open again"
        return None

    def goodbye(self, close: Close) -> str | None:
        return f"· {close.reason}"

    def commands_changed(self) -> None:
        """Nothing: `/commands` says which there are."""

    def detach(self) -> None:
        self._attachments.clear()

    def _render(self, attachment: Attachment, piece: Piece | Lost) -> list[str]:
        if isinstance(piece, Lost):
            return ["· some of this session is not kept any more"]
        match piece.entry.body:
            case Message(kind) if kind in _SPOKEN and piece.text:
                return [piece.text]
            case Change() as change:
                return self._change(attachment, change)
            case Asked() as asked if piece.entry.open:
                return [f"· the agent asks: {asked.title} (/allow {asked.id}, /deny {asked.id})"]
            case Answered() as answered:
                return [f"· {answered.words}"]
            case Update(data) if isinstance(data, dict) and data.get("sessionUpdate") == "tool_call":
                return [f"· {data.get('title', 'a tool')}"]
        return []

    def _change(self, attachment: Attachment, change: Change) -> list[str]:
        if change.state == "queued":
            running = attachment.session.conversation.running
            if change.work == "turn" and (running is None or running.id == change.id):
                return []
            exec_ = self._gateway.execs.find(change.id)
            if change.work == "exec" and (exec_ is None or exec_.state != "queued"):
                return []
            return [f"· queued, {change.position or 0} before it"]
        if change.state == "completed" and change.stop_reason == "max_tokens":
            return ["· the answer was cut at the model's limit"]
        if change.work == "exec" or change.state not in ("cancelled", "interrupted", "failed"):
            return []
        facts = change.facts or {}
        why = facts.get("message") or change.reason
        prompt = attachment.session.log.get(change.seq)
        words = prompt.body.text if prompt is not None and isinstance(prompt.body, Prompt) else ""
        again = _again(facts.get("retryAfterMs"))
        return [f"· {change.state} ({short(words, _QUOTED)}){f': {why}' if why else ''}{again}"]


def _again(milliseconds: int | None) -> str:
    """Return what to say of the time after which to try again; nothing for None."""
    return "" if milliseconds is None else f" (try again in {math.ceil(milliseconds / 1000)} s)"
