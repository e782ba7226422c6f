"""How many sessions there may be, of one principal and of all: counted while others are made and dropped."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import trio

from gateway_trio.store import AddSession, DropSession, Store

__all__ = ["Quota"]


class Quota:
    """Counts a store's sessions. `each` is the limit for one principal, `most` for all together (None: none)."""

    def __init__(self, store: Store, *, each: int, most: int | None) -> None:
        self.each = each
        self.certain = True  #: whether it is known how many there are: no commit was given up
        self._most = most
        self._store = store
        self._stored: Counter[str] = Counter()  #: by principal
        self._making: Counter[str] = Counter()  #: how many are about to be stored

    @contextlib.contextmanager
    def making(self, owner: str) -> Iterator[None]:
        """Count one that is being made: from before anything is waited for, as others are made meanwhile."""
        self._making[owner] += 1
        try:
            yield
        finally:
            self._making[owner] -= 1
            self._making += Counter()  # forgets those that have none

    def crowd(self, owner: str) -> tuple[str | None, int, int] | None:
        """Return of whom there are too many (None: of all), how many are stored, the limit; None if of nobody."""
        if self._stored[owner] + self._making[owner] > self.each:
            return owner, self._stored[owner], self.each
        there = self._stored.total()
        if self._most is not None and there + self._making.total() > self._most:
            return None, there, self._most
        return None

    async def count(self) -> None:
        """Learn from the store how many there are, behind everything that it was asked for before.

        Raises `StoreUnavailable`; then, and when cancelled, it is as certain as it was.
        """
        await self._store.commit(())
        self._stored = Counter(await self._store.owners())
        self.certain = self._making.total() <= 1  # another one that was made meanwhile may be counted twice

    async def add(self, row: AddSession) -> None:
        """Store one. Raises `StoreUnavailable`; cancelling leaves open whether it is there."""
        await self._commit(row)
        self._stored[row.owner] += 1

    async def drop(self, session_id: str, owner: str) -> None:
        """Let the store forget one. Raises and cancels as `add`."""
        await self._commit(DropSession(session_id))
        self._stored[owner] -= 1
        self._stored += Counter()

    async def _commit(self, change: AddSession | DropSession) -> None:
        try:
            await self._store.commit((change,))
        except trio.Cancelled:
            self.certain = False
            raise
