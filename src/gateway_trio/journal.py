"""How a session's log grows: stored first, then logged, one writer at a time.

`record` is the only way to a new number. So numbers have no gaps, and nobody is shown what is not stored. The text
of a growing message is stored behind it: when something closes the message, and by the saver in between.

What must be told although the store would not take it is logged by `insist`, and owed: the next transaction of the
session begins with it. A transaction that was given up may have happened or not, so what comes after it takes its
numbers back first (`Retract`).

No outcome is stored before the whole text of its turn or exec: a transaction with an event, a new one or one that
is owed, has the texts of that event's owner too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import trio
from attrs import evolve

from gateway_trio.catch_up import Commits
from gateway_trio.core.event_log import Log
from gateway_trio.core.events import Body, Entry, Kind
from gateway_trio.log import get_logger
from gateway_trio.store import (
    AddEvent,
    AddExec,
    AddTurn,
    Change,
    EndExec,
    Late,
    MoveTurn,
    Retract,
    SetText,
    Store,
    StoreUnavailable,
)

__all__ = ["Journal", "Over", "Reader"]

log = get_logger("sessions")


class Over(Exception):
    """Raised by `record` instead of writing: whoever wrote has its outcome already."""


class Reader(Protocol):
    """A connection that has a cursor on a session."""

    def poke(self) -> None:
        """There may be something to pull."""


class Journal:
    """The log of the session `id`, and the store behind it.

    `unsaved` is called when text waits to be stored; `commits` counts what is under way.
    """

    def __init__(
        self, id_: str, log: Log, store: Store, unsaved: Callable[[Journal], object], commits: Commits
    ) -> None:
        self.id = id_
        self.log = log
        self.readers: set[Reader] = set()
        self._store = store
        self._tell_unsaved = unsaved
        self._commits = commits
        self._writing = trio.Lock()
        self._texts: dict[int, Entry] = {}  #: messages whose text is longer than the store's
        self._owed: list[Change] = []
        self._unsure: int | None = None  #: from this number on the store may have what nobody was told

    @property
    def settled(self) -> bool:
        """Whether the store has all that was told."""
        return not (self._texts or self._owed or self._unsure is not None or self._writing.locked())

    async def record(
        self,
        owner: str,
        bodies: Callable[[int], Sequence[Body]],
        *rows: Change,
        admin: bool = False,
        over: Callable[[], bool] = lambda: False,
    ) -> list[Entry]:
        """Store and then log events of one owner, in one transaction with `rows`.

        `bodies` is called with the number that the first of them will have, which a turn's or an exec's row gets
        as its `seq`. Raises `StoreUnavailable`, and `Over` if `over()` says so once it is this writer's turn.
        Cancelling before the commit leaves nothing, and while it lasts nothing that counts.
        """
        await self._begin()
        try:
            while True:
                if over():
                    raise Over
                first = self.log.last + 1
                made = list(bodies(first))
                events = [AddEvent(self.id, first + i, owner, body, admin) for i, body in enumerate(made)]
                await self._commit(first, owner, [*events, *(_numbered(row, first) for row in rows)])
                # The store may have taken so long that something was insisted on meanwhile, at this number.
                if self.log.last + 1 == first and not over():
                    break
                self._doubt(first)
            entries = [self.log.append(owner, body, admin=admin) for body in made]
        finally:
            self._writing.release()
        self.wake()
        return entries

    def insist(
        self, owner: str, bodies: Callable[[int], Sequence[Body]], *rows: MoveTurn | EndExec, admin: bool = False
    ) -> list[Entry]:
        """Log without storing, and owe it: for what the store would not take and somebody waits for."""
        entries = [self.log.append(owner, body, admin=admin) for body in bodies(self.log.last + 1)]
        for entry in entries:
            entry.unsaved = True
        self._owed += [AddEvent(self.id, entry.number, owner, entry.body, admin) for entry in entries]
        self._owed += [Late(row) for row in rows]
        self._tell_unsaved(self)
        self.wake()
        return entries

    async def put(
        self, owner: str, bodies: Callable[[int], Sequence[Body]], *rows: EndExec, admin: bool = False
    ) -> list[Entry]:
        """Store and log, or where the store would not take it, log and owe it: what an exec says must arrive."""
        try:
            return await self.record(owner, bodies, *rows, admin=admin)
        except StoreUnavailable as fault:
            log.warning("not stored", session=self.id, owner=owner, error=str(fault))
            return self.insist(owner, bodies, *rows, admin=admin)

    async def say(self, owner: str, kind: Kind, text: str, open_message: Callable[[], Awaitable[object]]) -> None:
        """Append to the owner's open message; `open_message` opens one where there is none or it is full."""
        while text:
            room = self.log.room(owner, kind)
            if not room:
                await open_message()
                continue
            entry = self.log.say(owner, text[:room])
            if self._store.durable:
                entry.unsaved = True
                self._texts[entry.number] = entry
                self._tell_unsaved(self)
            text = text[room:]
        self.wake()

    async def save(self) -> None:
        """Store what is owed, and the texts as far as they have grown. Raises `StoreUnavailable`."""
        if self.settled:
            return
        await self._begin()
        try:
            await self._commit(self.log.last + 1, None, [])
        finally:
            self._writing.release()

    def wake(self) -> None:
        """Tell every reader that there is something to pull."""
        for reader in self.readers:
            reader.poke()

    async def _begin(self) -> None:
        """Wait until nobody else writes; where nobody does, without a pass of the scheduler."""
        if self._writing.locked():
            await self._writing.acquire()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
            self._writing.acquire_nowait()

    async def _commit(self, first: int, owner: str | None, changes: Sequence[Change]) -> None:
        """Commit what is owed, then the texts of whoever owes and of this owner (None: of all), then `changes`."""
        owed, unsure = list(self._owed), self._unsure
        owners = {owner, *(change.owner for change in owed if isinstance(change, AddEvent))}
        texts = [entry for entry in self._texts.values() if owner is None or entry.owner in owners]
        told = [(entry, SetText(self.id, entry.number, str(entry.text))) for entry in texts]
        back = [] if unsure is None else [Retract(self.id, unsure)]
        everything = [*back, *owed, *(row for _, row in told), *changes]
        if not everything:
            return
        try:
            with self._commits.one():
                await self._store.commit(everything)
        except trio.Cancelled:
            numbers = [change.number for change in owed if isinstance(change, AddEvent)]
            self._doubt(min([first, *numbers, *([] if unsure is None else [unsure])]))
            raise
        del self._owed[: len(owed)]  # what was insisted on meanwhile stands behind it
        self._unsure = None
        for entry, row in told:
            if len(entry.text) == len(row.text):
                self._texts.pop(entry.number, None)
        self._saved([row.number for row in everything if isinstance(row, AddEvent | SetText)])

    def _saved(self, numbers: Sequence[int]) -> None:
        """The store has these, but for texts that grew meanwhile: the log may forget them."""
        for number in numbers:
            entry = self.log.get(number)
            if entry is not None and number not in self._texts:
                entry.unsaved = False
        self.log.trim()

    def _doubt(self, start: int) -> None:
        """From this number on the store may have what does not count: the next transaction takes it back."""
        self._unsure = start
        self._tell_unsaved(self)


def _numbered(row: Change, seq: int) -> Change:
    return evolve(row, seq=seq) if isinstance(row, AddTurn | AddExec) else row
