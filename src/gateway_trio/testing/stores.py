"""Stores that survive a gateway, or fail when they are told to."""

from __future__ import annotations

from collections.abc import Sequence

import trio
import trio.testing

from gateway_trio.memory_store import MemoryStore
from gateway_trio.store import Change, StoreUnavailable

__all__ = ["FailingStore", "KeptStore"]


class KeptStore(MemoryStore):
    """A durable store in memory: one gateway after another may use it. `left` is what a crash would leave."""

    durable = True

    def __init__(self) -> None:
        super().__init__(keep_events=1_000_000)

    def left(self) -> KeptStore:
        """Return a store with what is in this one now."""
        store = KeptStore()
        store.take_over(self)
        return store


class FailingStore(MemoryStore):
    """A store that fails while `failing` is set, and does not answer commits between `stall` and `go`.

    `keep_events` is `MemoryStore`'s. With `durable` a gateway relies on it as on one on disk.
    """

    def __init__(self, keep_events: int = 0, *, durable: bool = False) -> None:
        super().__init__(keep_events=keep_events)
        self.durable = durable
        self.failing = False
        self._happens = False
        self._given_up: list[Sequence[Change]] = []
        self._in_order = trio.StrictFIFOLock()
        self._going = trio.Event()
        self._going.set()

    def stall(self, *, happens: bool = False) -> None:
        """Let commits wait until `go`; with `happens`, one that is given up meanwhile is carried out after all."""
        self._going = trio.Event()
        self._happens = happens

    def go(self) -> None:
        """Let commits through again."""
        self._going.set()

    async def commit(self, changes: Sequence[Change]) -> None:
        try:
            async with self._in_order:
                await self._going.wait()
                while self._given_up:
                    await super().commit(self._given_up.pop(0))
                if self.failing:
                    raise StoreUnavailable("no space left on device")
                await super().commit(changes)
        except trio.Cancelled:
            if self._happens:
                self._given_up.append(changes)
            raise
