"""A session's updates as records for `gateway-trio sessions export`: each event once, its text whole.

A message is whole when another event of its owner follows, or the session ends. Records come in the order of their
numbers: those behind a message that is not whole yet wait for it, but no more than `MOST_WAITING` of them; beyond
it they come before it. docs/client.md has the format; `FORMAT` is its number, which a change that breaks readers
raises.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Any

from attrs import define, field

from gateway_trio.core.acp import OURS
from gateway_trio.core.text import Text as Characters
from gateway_trio.core.updates import Gap, NewConversation, Other, Plan, State, Text, Tool, Update

__all__ = ["FORMAT", "MOST_CHARS", "MOST_WAITING", "Archive"]

FORMAT = 1

#: Records that wait for a message before them, and the characters of their texts.
MOST_WAITING = 1000
MOST_CHARS = 4 * 1024 * 1024

Record = dict[str, Any]

#: What of a change of state has a place of its own in its record; the rest are facts.
_STATE_FIELDS = frozenset({"id", "seq", "state", "key", "reason", "position"})


@define
class _Message:
    kind: str
    owner: str
    start: int
    text: Characters


@define(order=True)
class _Waiting:
    seq: int
    count: int
    record: Record = field(order=False)


class Archive:
    """Updates in, records out; `count` is how many came out."""

    def __init__(self, *, most_waiting: int = MOST_WAITING, most_chars: int = MOST_CHARS) -> None:
        self.count = 0
        self._most_waiting = most_waiting
        self._most_chars = most_chars
        self._growing: dict[int, _Message] = {}
        self._waiting: list[_Waiting] = []
        self._chars = 0
        self._came = 0

    def take(self, update: Update) -> list[Record]:
        """Return the records that are due with this update; what is no event gives none of its own."""
        match update:
            case Text():
                self._close(update.owner, update.seq)
                self._say(update)
            case State(id=owner):
                self._close(owner, update.seq)
                self._wait(update.seq, _state(update))
            case Tool(owner, seq, id_, title, status, data):
                self._close(owner, seq)
                call = {"tool": id_, "title": title, "status": status, "data": _bare(data)}
                self._wait(seq, {"seq": seq, "kind": "tool", "owner": owner, **call})
            case Plan(owner, seq, entries):
                self._close(owner, seq)
                self._wait(seq, {"seq": seq, "kind": "plan", "owner": owner, "entries": list(entries)})
            case NewConversation(seq):
                self._wait(seq, {"seq": seq, "kind": "new_conversation", "owner": ""})
            case Other(data, seq, owner) if seq:
                self._close(owner, seq)
                self._wait(seq, {"seq": seq, "owner": owner, **_other(data)})
            case Gap(int(start), upto):
                self._wait(start, {"seq": start, "kind": "lost", "from": start, "to": upto})
        return self._due()

    def end(self) -> list[Record]:
        """Return what is left: nothing more comes. A message that was still growing says `open`."""
        for seq in list(self._growing):
            self._finish(seq, open=True)
        return self._due()

    def _say(self, piece: Text) -> None:
        message = self._growing.get(piece.seq)
        if message is None or not message.start <= piece.at <= message.start + len(message.text):
            self._growing[piece.seq] = _Message(piece.kind, piece.owner, piece.at, Characters(piece.text))
            return
        kept = piece.at - message.start
        if kept < len(message.text):
            message.text = Characters(message.text.read(0, kept))
        message.text.append(piece.text)

    def _close(self, owner: str, seq: int) -> None:
        """An event of this owner came, so its messages before that are whole."""
        for number in [n for n, message in self._growing.items() if message.owner == owner and n < seq]:
            self._finish(number)

    def _finish(self, seq: int, **more: Any) -> None:
        message = self._growing.pop(seq)
        record = {"seq": seq, "kind": message.kind, "owner": message.owner, "text": str(message.text), **more}
        if message.start:
            record["at"] = message.start  # what was before it is lost
        self._wait(seq, record)

    def _wait(self, seq: int, record: Record) -> None:
        self._came += 1
        self._chars += len(record.get("text", ""))
        heapq.heappush(self._waiting, _Waiting(seq, self._came, record))

    def _due(self) -> list[Record]:
        due: list[Record] = []
        first = min(self._growing, default=None)
        while self._waiting and (first is None or self._waiting[0].seq < first or self._too_many):
            record = heapq.heappop(self._waiting).record
            self._chars -= len(record.get("text", ""))
            due.append(record)
        self.count += len(due)
        return due

    @property
    def _too_many(self) -> bool:
        return len(self._waiting) > self._most_waiting or self._chars > self._most_chars


def _state(state: State) -> Record:
    record: Record = {"seq": state.seq, "kind": state.work, "owner": state.id, "state": state.state}
    record |= {"key": state.key, "reason": state.reason, "prompt": state.data.get("seq")}
    if state.position is not None:
        record["position"] = state.position
    facts = {name: value for name, value in state.data.items() if name not in _STATE_FIELDS}
    return record | ({"facts": facts} if facts else {})


def _other(data: Mapping[str, Any]) -> Record:
    meta = data.get("_meta")
    ours = meta.get(OURS) if isinstance(meta, dict) else None
    asked = ours.get("permission") if isinstance(ours, dict) else None
    return {"kind": "other", "data": _bare(data)} if asked is None else {"kind": "permission", "permission": asked}


def _bare(data: Mapping[str, Any]) -> Record:
    """Return ACP's part of an update; ours is in the record itself."""
    return {name: value for name, value in data.items() if name != "_meta"}
