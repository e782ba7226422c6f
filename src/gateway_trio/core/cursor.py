"""The cursor with which one connection reads one session's log.

A cursor is pulled, never pushed. What it gives next is decided by three rules, in this order:

1. the rest of a message that was closed, oldest first;
2. the next number;
3. new text of messages that are still open, in turn.

Rule 1 before 2 keeps an owner's end behind its text; 2 before 3 keeps a growing answer from starving what
comes after it. So a live client, a late one, a slow one, and one that loads or resumes are all the same code
with another start. What is not kept any more is told, and passed over; but what a store still has is asked for
first (`Missing`), and given to the cursor a page at a time.

For `/chat` a cursor is *whole*: an open message is stepped over and given once it is closed.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable

from attrs import frozen

from gateway_trio.core.event_log import Log, Mark
from gateway_trio.core.events import Entry, Message

__all__ = ["Cursor", "Lost", "Missing", "Piece"]


@frozen
class Piece:
    """What a cursor gives: an entry, and for a message the text from `at` on."""

    entry: Entry
    at: int = 0
    text: str = ""


@frozen
class Lost:
    """Numbers that were not kept long enough for this cursor; `upto` included."""

    start: int
    upto: int


@frozen
class Missing:
    """The cursor cannot go on before it is given a page that starts at `start`.

    From `before` on the log has more than the store may have: what a page has of that does not count.
    """

    start: int
    before: int


@frozen
class _Page:
    """What a store has from `start` to `upto`, both included; a number that is not in `entries` is gone."""

    start: int
    upto: int
    entries: dict[int, Entry]


class Cursor:
    """How far one connection has been sent one session.

    `sees` decides which entries this connection may have; the others are stepped over. `whole` gives messages
    only once they are closed.
    """

    def __init__(self, log: Log, sees: Callable[[Entry], bool], *, whole: bool = False, start: int = 1) -> None:
        self.next = start
        self._log = log
        self._sees = sees
        self._whole = whole
        self._offsets: dict[int, int] = {}
        self._lost: deque[int] = deque()
        self._page = _Page(0, -1, {})
        self._asked = deque(entry for entry in log.unanswered() if entry.number < start and sees(entry))

    @classmethod
    def live(cls, log: Log, sees: Callable[[Entry], bool], *, whole: bool = False) -> Cursor:
        """From now on, with messages that are still growing from their start."""
        cursor = cls(log, sees, whole=whole, start=log.last + 1)
        cursor._offsets = {entry.number: 0 for entry in log.open_messages() if sees(entry)}
        return cursor

    @classmethod
    def resumed(cls, log: Log, sees: Callable[[Entry], bool], after: int, growing: Iterable[int] = ()) -> Cursor:
        """For a client that has everything up to `after`, but perhaps only a part of what was unfinished then.

        Of a message whose owner had not ended it may have a part because it was growing, or because an earlier
        resume, which gives it anew, was cut off. `growing` are such messages as a store knows them.
        """
        cursor = cls(log, sees, start=after + 1)
        cursor._lost.extend(entry.number for entry in log.gone(after) if sees(entry))
        cursor._offsets = {entry.number: 0 for entry in log.unended(after) if sees(entry)}
        cursor._offsets |= {number: 0 for number in growing if log.get(number) is None}
        return cursor

    def give(self, asked: Missing, entries: Iterable[Entry]) -> None:
        """Take the page that was asked for: the store's next entries, in order, () if there are none.

        It takes the place of the one before, so that one page is in memory, whatever there is to read.
        """
        page = {entry.number: entry for entry in entries}
        upto = min(max(page, default=asked.before), asked.before - 1)
        self._page = _Page(asked.start, upto, {n: entry for n, entry in page.items() if n <= upto})

    def passed(self, mark: Mark) -> bool:
        """Whether everything has been given that stood in the log at `mark`."""
        if self.next <= mark.last or self._lost:
            return False
        for number, at in self._offsets.items():
            entry = self._get(number)
            length = math.inf if entry is None else len(entry.text)  # one that is lost was not told yet
            if number <= mark.last and at < mark.lengths.get(number, length):
                return False
        return True

    def pull(self, room: int) -> Piece | Lost | Missing | None:
        """Return the next piece, of at most `room` characters, or None if there is nothing now.

        `Missing` comes again and again until `give` was called with the first, as the log goes on meanwhile.
        """
        return (
            self._told_loss()
            or self._still_asked()
            or self._rest_of_closed(room)
            or self._next_number(room)
            or self._new_text(room)
        )

    def _told_loss(self) -> Lost | None:
        if not self._lost:
            return None
        number = self._lost.popleft()
        return Lost(number, number)

    def _still_asked(self) -> Piece | None:
        while self._asked:
            entry = self._asked.popleft()
            if entry.open:
                return Piece(entry)
        return None

    def _get(self, number: int) -> Entry | None:
        entry = self._log.get(number)
        return self._page.entries.get(number) if entry is None else entry

    def _to_fetch(self, number: int) -> bool:
        """Whether a number that is neither in the log nor in the page may be in the store."""
        return self._log.backed and not self._page.start <= number <= self._page.upto

    def _missing(self, number: int) -> Missing:
        return Missing(number, self._log.next_kept(number))

    def _rest_of_closed(self, room: int) -> Piece | Lost | Missing | None:
        for number in sorted(self._offsets):
            entry = self._get(number)
            if entry is None and self._to_fetch(number):
                return self._missing(number)
            if entry is None:
                del self._offsets[number]
                return Lost(number, number)
            if entry.open:
                continue
            if self._offsets[number] >= len(entry.text) or not self._sees(entry):
                del self._offsets[number]
                continue
            return self._piece(entry, room)
        return None

    def _next_number(self, room: int) -> Piece | Lost | Missing | None:
        log = self._log
        while self.next <= log.last:
            entry = self._get(self.next)
            if entry is None and self._to_fetch(self.next):
                return self._missing(self.next)
            if entry is None:
                start, self.next = self.next, self._next_there(self.next)
                return Lost(start, self.next - 1)
            self.next += 1
            if not self._sees(entry):
                continue
            if not isinstance(entry.body, Message):
                return Piece(entry)
            self._offsets[entry.number] = 0
            if len(entry.text) and not (self._whole and entry.open):
                return self._piece(entry, room)
        return None

    def _next_there(self, number: int) -> int:
        """Return the next number that is in the log, or in the page, or that may be in the store."""
        kept = self._log.next_kept(number)
        if not self._log.backed:
            return kept
        return min([kept, self._page.upto + 1, *(there for there in self._page.entries if there > number)])

    def _new_text(self, room: int) -> Piece | None:
        if self._whole:
            return None
        for number, at in self._offsets.items():
            entry = self._get(number)
            if entry is not None and at < len(entry.text):
                return self._piece(entry, room)
        return None

    def _piece(self, entry: Entry, room: int) -> Piece:
        """Give text and move the message behind the others, so that growing ones take turns."""
        at = self._offsets.pop(entry.number)
        text = entry.text.read(at, room)
        if entry.open or at + len(text) < len(entry.text):
            self._offsets[entry.number] = at + len(text)
        return Piece(entry, at, text)
