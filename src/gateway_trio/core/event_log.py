"""The numbered log of one session.

Any other entry of a turn or an exec closes that owner's open message first, so that an owner's events never stand
before its text. A permission request (`Asked`) is open until its `Answered` follows; what is open is not
forgotten.

It is read through `core.cursor`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from attrs import frozen

from gateway_trio.core.events import Body, Change, Entry, Kind, Message
from gateway_trio.core.history import History
from gateway_trio.core.permission import CANCELLED, Answered, Asked

__all__ = ["MESSAGE_CHARS", "Log", "Mark"]

#: A message is closed at this many characters and its owner goes on in a new one.
MESSAGE_CHARS = 256 * 1024


@frozen
class Mark:
    """How far a log went at one moment: its last number and what its open messages held then."""

    last: int
    lengths: dict[int, int]


class Log:
    """The events of one session, numbered from 1 without a gap.

    At most `keep_bytes` of closed entries are kept; the oldest go first. What is open or unsaved stays. Where a
    durable store has them all the log is *backed*: what it does not keep any more is not lost, but to be fetched.
    Beside that, its history keeps as much of the conversation.
    """

    def __init__(self, keep_bytes: int, *, backed: bool = False) -> None:
        self.last = 0
        self.trimmed = 0  #: the highest number that is not kept any more
        self.backed = backed
        self._keep_bytes = keep_bytes
        self._bytes = 0
        self._entries: OrderedDict[int, Entry] = OrderedDict()  # its first is found in constant time
        self._open: dict[str, Entry] = {}
        self._asked: dict[int, Entry] = {}  # the open permission requests
        self._ended: dict[str, int] = {}
        self.history = History(keep_bytes)  #: the turns that a model is told of
        self._gone: dict[str, list[Entry]] = {}  # messages not kept any more, as long as their owner's end is

    @classmethod
    def restored(cls, keep_bytes: int, last: int, newest: Iterable[Entry] = ()) -> Log:
        """Return a backed log that goes on after `last`; `newest` are the last entries, in order."""
        log = cls(keep_bytes, backed=True)
        log.last = log.trimmed = last
        log.restore(newest)
        return log

    def restore(self, entries: Iterable[Entry]) -> None:
        """Take more of the last entries, in order: for one that is restored bit by bit, before it is used."""
        for entry in entries:
            self.trimmed = min(self.trimmed, entry.number - 1)
            self._entries[entry.number] = entry
            self._bytes += entry.bytes
            self.history.add(entry)
            self._open_or_close(entry)

    def recall(self, entries: Iterable[Entry]) -> None:
        """Take some of the conversation from before those that are to be restored: for the history alone."""
        for entry in entries:
            self.history.add(entry)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, number: int) -> Entry | None:
        return self._entries.get(number)

    def next_kept(self, number: int) -> int:
        """Return the lowest number, not below `number`, that is kept, or `last + 1`."""
        if number > self.trimmed:
            return min(number, self.last + 1)
        return next((kept for kept in self._entries if kept >= number), self.last + 1)

    def append(self, owner: str, body: Body, *, admin: bool = False) -> Entry:
        """Number an entry and close its owner's open message. A `Message` is open until something closes it."""
        self.close(owner)
        self.last += 1
        entry = Entry(self.last, owner, body, admin=admin)
        self._entries[entry.number] = entry
        self.history.add(entry)
        if isinstance(body, Message):
            entry.open = True
            self._open[owner] = entry
        self._open_or_close(entry)
        self._grow(entry.bytes)
        return entry

    def _open_or_close(self, entry: Entry) -> None:
        match entry.body:
            case Change(ends=True):
                self._ended[entry.owner] = entry.number
                for asked in self.unanswered(entry.owner):
                    self._close_asked(asked)
            case Asked():
                entry.open = True
                self._asked[entry.number] = entry
            case Answered(id_):
                for asked in self.unanswered():
                    if isinstance(asked.body, Asked) and asked.body.id == id_:
                        self._close_asked(asked)

    def room(self, owner: str, kind: Kind) -> int:
        """Return how many characters the owner's open message of this kind still takes; 0 if there is none."""
        entry = self._open.get(owner)
        if entry is None or entry.body != Message(kind):
            return 0
        return MESSAGE_CHARS - len(entry.text)

    def say(self, owner: str, text: str) -> Entry:
        """Append to the owner's open message, at most `room` characters; return it."""
        entry = self._open[owner]
        before = entry.text.bytes
        entry.text.append(text)
        size = entry.text.bytes - before
        self.history.grown(entry, size)
        self._grow(size)
        return entry

    def close(self, owner: str) -> None:
        """Close the owner's open message, if it has one."""
        entry = self._open.pop(owner, None)
        if entry is not None:
            entry.open = False

    def mark(self) -> Mark:
        return Mark(self.last, {e.number: len(e.text) for e in self._open.values()})

    def open_messages(self) -> Iterator[Entry]:
        return iter(sorted(self._open.values(), key=lambda entry: entry.number))

    def unanswered(self, owner: str | None = None) -> list[Entry]:
        """Return the permission requests that are open, oldest first: of one owner, or of all if that is None."""
        return [entry for entry in self._asked.values() if owner in (None, entry.owner)]

    def last_words(self, change: Change) -> list[Body]:
        """Return an outcome, behind an answer to each permission request that its turn left open."""
        left = (entry.body for entry in self.unanswered(change.id))
        return [*(Answered(body.id, CANCELLED) for body in left if isinstance(body, Asked)), change]

    def unended(self, after: int) -> list[Entry]:
        """Return the messages numbered `after` or lower whose owner had not ended by `after`."""
        return [
            entry
            for entry in self._entries.values()
            if entry.number <= after
            and isinstance(entry.body, Message)
            and self._ended.get(entry.owner, after + 1) > after
        ]

    def gone(self, after: int) -> list[Entry]:
        """Return, without their texts, those that `unended` would have if they were kept; oldest first."""
        found = [e for owner, es in self._gone.items() if self._ended.get(owner, after + 1) > after for e in es]
        return sorted((entry for entry in found if entry.number <= after), key=lambda entry: entry.number)

    def _close_asked(self, asked: Entry) -> None:
        asked.open = False
        del self._asked[asked.number]

    def _grow(self, size: int) -> None:
        self._bytes += size
        self.trim()

    def trim(self) -> None:
        """Forget what is too much: the oldest of what is neither open nor unsaved."""
        while self._bytes > self._keep_bytes and (oldest := self._oldest_closed()) is not None:
            self._forget(oldest)

    def _oldest_closed(self) -> Entry | None:
        """Pass over open and unsaved ones, and stop at the newest entry: whoever wrote it still looks at it."""
        closed = (entry for entry in self._entries.values() if not (entry.open or entry.unsaved))
        oldest = next(closed, None)
        return None if oldest is None or oldest.number == self.last else oldest

    def _forget(self, entry: Entry) -> None:
        del self._entries[entry.number]
        self._bytes -= entry.bytes
        self.trimmed = max(self.trimmed, entry.number)
        if isinstance(entry.body, Message) and not self.backed:
            self._gone.setdefault(entry.owner, []).append(
                Entry(entry.number, entry.owner, entry.body, entry.admin)
            )
        elif isinstance(entry.body, Change) and entry.body.ends:
            # Whoever has less than this has less than `trimmed`.
            del self._ended[entry.owner]
            self._gone.pop(entry.owner, None)
