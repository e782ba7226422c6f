"""Tasks of which only so many run at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

__all__ = ["FewTasks"]


class FewTasks:
    """Starts tasks in a nursery, at most `most` at once."""

    def __init__(self, nursery: trio.Nursery, most: int) -> None:
        self._nursery = nursery
        self._left = most

    def start(self, function: Callable[[], Awaitable[None]]) -> bool:
        """Run it as a task; False if too many run already."""
        if not self._left:
            return False
        self._left -= 1
        self._nursery.start_soon(self._run, function)
        return True

    async def _run(self, function: Callable[[], Awaitable[None]]) -> None:
        try:
            await function()
        finally:
            self._left += 1
