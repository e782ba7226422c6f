"""Who goes first: what happens now, or what a client that is far behind still has to be sent.

A client that loads a long session could be sent it as fast as the machine can, and fifty of them stand before
everybody else's next token. So they take turns, a small batch each, with a few passes of the scheduler between two
of them; and they wait while the store has something to commit, whose thread would otherwise have to wrest the
interpreter from the loop again and again.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator

import trio

__all__ = ["CatchUp", "Commits"]

#: Passes of the scheduler between two batches. From a prompt to its first token there are some fifteen.
_PASSES = 4

#: How long a batch waits for commits at most: where one follows the other, history has its share too.
_WAIT_SECONDS = 0.005


class Commits:
    """Counts the commits that are under way."""

    def __init__(self) -> None:
        self._count = 0
        self._none = trio.Event()
        self._none.set()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Count one for the time of the block."""
        self._count += 1
        if self._count == 1:
            self._none = trio.Event()
        try:
            yield
        finally:
            self._count -= 1
            if self._count == 0:
                self._none.set()

    async def until_none(self) -> None:
        """Wait for a moment at which there is none."""
        await self._none.wait()


class CatchUp:
    """Lets one connection at a time make frames of what lies behind, when nothing else is more urgent."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits
        self._turn = trio.Lock()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for one's turn; the block makes a small batch, without a checkpoint. Cancelling leaves the line."""
        async with self._turn:
            for _ in range(_PASSES):
                await trio.lowlevel.checkpoint()
            with trio.move_on_after(_WAIT_SECONDS):
                await self._commits.until_none()
            yield
