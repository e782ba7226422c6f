"""Stores what was told before it was stored: text that grows, and what the store would not take at first."""

from __future__ import annotations

from typing import Protocol

import trio

from gateway_trio.log import get_logger
from gateway_trio.store import StoreUnavailable

__all__ = ["BEHIND_SECONDS", "Saver", "Unsaved"]

log = get_logger("saver")

#: How far the store may be behind a text that grows: what a crash costs. Saving takes a part of that second.
BEHIND_SECONDS = 0.7

#: Beyond it the waits between attempts grow no more, while the store takes nothing.
_LONGEST_WAIT_SECONDS = 30.0

#: Sessions that are saved at once; a store makes one transaction of those that come together.
_AT_ONCE = 64


class Unsaved(Protocol):
    """A session's journal, and whatever else may owe the store something. `id` is its own."""

    id: str

    @property
    def settled(self) -> bool:
        """Whether the store has all of it."""

    async def save(self) -> None:
        """Store what is owed. Raises `StoreUnavailable`; cancelling leaves it owed."""


class Saver:
    """One service for all sessions. Each has one place in it, however much it has to save."""

    def __init__(self) -> None:
        self._waiting: dict[str, Unsaved] = {}
        self._wake = trio.Event()

    def add(self, journal: Unsaved) -> None:
        """Note that there is something to save."""
        self._waiting[journal.id] = journal
        self._wake.set()

    async def run(self) -> None:
        """Save again and again until cancelled. A store that takes nothing is asked more and more rarely."""
        wait = BEHIND_SECONDS
        while True:
            await self._wake.wait()
            await trio.sleep(wait)
            fault = await self.save()
            wait = BEHIND_SECONDS if fault is None else min(wait * 2, _LONGEST_WAIT_SECONDS)

    async def save(self) -> StoreUnavailable | None:
        """Save what waits now; return why something is left, None if nothing is. Cancelling leaves the rest."""
        self._wake = trio.Event()
        batch = list(self._waiting.values())
        faults: list[StoreUnavailable] = []
        gate = trio.CapacityLimiter(_AT_ONCE)

        async def save_one(journal: Unsaved) -> None:
            async with gate:
                self._waiting.pop(journal.id, None)
                try:
                    await journal.save()
                except StoreUnavailable as fault:
                    faults.append(fault)
                finally:
                    if not journal.settled:
                        self.add(journal)

        async with trio.open_nursery() as nursery:
            for journal in batch:
                nursery.start_soon(save_one, journal)
        if faults:
            log.warning("not saved yet", sessions=len(faults), error=str(faults[0]))
        return faults[0] if faults else None
