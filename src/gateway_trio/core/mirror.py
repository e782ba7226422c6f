"""What a client has of a session: updates in, what is new for its user out, each once and in order.

A connection that was lost and came back resumes behind `after`. The gateway then sends again, from `at: 0`, every
message whose turn or exec had not ended by then. So the text of what still runs is kept here, and what comes again
is held against it: as long as it is the same nothing is told, where it differs it is told from there on, and where
it turns out to be shorter (a gateway that crashed may have lost the last second) its end is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import define, evolve

from gateway_trio.core.text import Text as Characters
from gateway_trio.core.update_frames import read
from gateway_trio.core.updates import Gap, NewConversation, Other, Plan, State, Text, Tool, Update

__all__ = ["KEEP_CHARS", "Mirror"]

#: Characters of running messages that are kept. Beyond it the oldest message is forgotten; if it is sent again it
#: is told again, from `at: 0`.
KEEP_CHARS = 8 * 1024 * 1024


@define
class _Message:
    """A message so far. `start` is where `text` begins in it; `again` how far it has come again, if it has."""

    first: Text
    start: int
    text: Characters
    again: int | None = None

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    def take(self, piece: Text) -> Iterator[Text]:
        """Take what comes at `piece.at`, which is not beyond the end."""
        known = self.text.read(piece.at - self.start, len(piece.text))
        same = _common(known, piece.text)
        place, rest = piece.at + same, piece.text[same:]
        if not rest:
            self.again = place if place < self.end else None
            return
        yield from self.cut(place, rest)

    def cut(self, at: int, rest: str = "") -> Iterator[Text]:
        """Let `rest` stand from `at` on."""
        self.again = None
        if at < self.end:
            self.text = Characters(self.text.read(0, at - self.start))
        self.text.append(rest)
        yield evolve(self.first, at=at, text=rest)


def _common(one: str, other: str) -> int:
    """Return how many characters both begin with."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)


class Mirror:
    """One session as one client knows it. `last` is the highest number that it has."""

    def __init__(self, last: int = 0, *, keep_chars: int = KEEP_CHARS) -> None:
        self.last = last
        self._keep_chars = keep_chars
        self._chars = 0
        self._messages: dict[int, _Message] = {}
        self._over: set[str] = set()
        self._tail_is_prompt = False

    @property
    def after(self) -> int:
        """Behind which number to resume. A prompt comes in pieces, and is whole when something follows it."""
        return self.last - 1 if self._tail_is_prompt else self.last

    def resume(self) -> None:
        """What comes from now on comes over another connection."""
        for message in self._messages.values():
            message.again = None

    def reset(self, last: int) -> None:
        """Nothing is replayed: know nothing but that the log ends at `last`."""
        self.last = last
        self._messages.clear()
        self._over.clear()
        self._chars = 0
        self._tail_is_prompt = False

    def texts(self, owner: str) -> list[Text]:
        """Return what there is of the messages of a turn or exec, also directly after its end; no prompt."""
        found = (m for m in self._messages.values() if m.first.owner == owner and m.first.kind != "prompt")
        return [evolve(m.first, at=m.start, text=str(m.text)) for m in found]

    def apply(self, data: Mapping[str, Any]) -> list[Update]:
        """Take the `update` of a `session/update`, whatever it holds; return what it says that is new."""
        self._forget_ended()
        update = read(data)
        match update:
            case Text():
                return self._said(update)
            case State(seq=seq) if seq:
                return self._numbered(update, seq, update.id)
            case Tool(seq=seq, owner=owner) | Plan(seq=seq, owner=owner) | Other(seq=seq, owner=owner) if seq:
                return self._numbered(update, seq, owner)
            case NewConversation(seq) if seq:
                return self._numbered(update, seq, "")
            case Gap(upto=int(upto)):
                self.last = max(self.last, upto)
        return [update]

    def _numbered(self, update: Update, seq: int, owner: str) -> list[Update]:
        if seq <= self.last:
            return []
        self._passed(seq)
        told: list[Update] = list(self._closed(owner, seq))
        if isinstance(update, State) and update.ends:
            self._over.add(owner)
        return [*told, update]

    def _said(self, piece: Text) -> list[Update]:
        told: list[Update] = list(self._closed(piece.owner, piece.seq))
        message = self._messages.get(piece.seq)
        if message is None:
            message = _Message(evolve(piece, at=0, text=""), 0, Characters())
            self._messages[piece.seq] = message
        before = len(message.text)
        if not message.start <= piece.at <= message.end:
            told.append(Gap(piece.seq, piece.seq))
            message.start, message.text, message.again = piece.at, Characters(), None
        told += message.take(piece)
        self._chars += len(message.text) - before
        if piece.seq >= self.last:
            self._passed(piece.seq, prompt=piece.kind == "prompt")
        self._keep_bounds(piece.seq)
        return told

    def _passed(self, seq: int, *, prompt: bool = False) -> None:
        self.last = seq
        self._tail_is_prompt = prompt

    def _closed(self, owner: str, seq: int) -> Iterator[Text]:
        """Something of this owner follows: what has not come again of its messages before that is no more."""
        for number, message in self._messages.items():
            if message.again is not None and message.first.owner == owner and number < seq:
                self._chars -= message.end - message.again
                yield from message.cut(message.again)

    def _forget_ended(self) -> None:
        if self._over:
            for number in [n for n, m in self._messages.items() if m.first.owner in self._over]:
                self._forget(number)
            self._over.clear()

    def _keep_bounds(self, newest: int) -> None:
        while self._chars > self._keep_chars and (oldest := next(iter(self._messages))) != newest:
            self._forget(oldest)

    def _forget(self, number: int) -> None:
        self._chars -= len(self._messages.pop(number).text)
