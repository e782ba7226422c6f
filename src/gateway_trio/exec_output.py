"""The way of a command's output: pipe → filter → what is shown → `emit`.

A reader empties the pipe as fast as the command fills it, and a deliverer hands text to `emit`, which may
wait for the store. Neither waits for the other: what is between them is bounded by what is shown at all
(`Kept`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

from gateway_trio.core.output import Kept, OutputFilter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["PIPE_SECONDS", "Output"]

PIPE_SECONDS = 0.25  #: how long the pipe may take to end after its command did

_READ_BYTES = 64 * 1024
_MOST_READS = 16  # until the largest pipe is empty


class Output:
    """What one command writes, from the pipe to `emit`.

    Args:
      pipe: The end to read from. Whoever made it closes it.
      secrets: Values that must not be shown.
      limit: How many bytes may come. With the first read beyond it, reading ends.
      over_limit: Called then, once.
      emit: Takes the text, in order, in pieces that are not empty.

    """

    def __init__(
        self,
        pipe: trio.lowlevel.FdStream,
        secrets: tuple[str, ...],
        limit: int,
        over_limit: Callable[[], None],
        emit: Callable[[str], Awaitable[None]],
    ) -> None:
        self._pipe = pipe
        self._limit = limit
        self._over_limit = over_limit
        self._emit = emit
        self._filter = OutputFilter(secrets)
        self._kept = Kept()
        self._ended = trio.Event()
        self._closed = False
        self._pending: list[str] = []
        self._more = trio.Event()
        self.bytes = 0

    @property
    def cut(self) -> int:
        """How many characters were lost so far."""
        return self._kept.cut

    async def read(self) -> None:
        """Read until the pipe ends or the limit is passed. After a cancel, `close` reads the rest."""
        while not self._ended.is_set():
            self._take(await self._pipe.receive_some(_READ_BYTES))

    async def wait_end(self) -> None:
        """Wait until nothing more will come, or `PIPE_SECONDS` have passed."""
        with trio.move_on_after(PIPE_SECONDS):
            await self._ended.wait()

    def close(self) -> None:
        """Take what still stands in the pipe, without waiting, and nothing later. `read` must have ended."""
        reads = 0
        while reads < _MOST_READS and not self._ended.is_set():
            try:
                self._take(os.read(self._pipe.fileno(), _READ_BYTES))
            except BlockingIOError:
                break
            reads += 1
        self._show(self._kept.add(self._filter.finish()) + self._kept.finish())
        self._closed = True
        self._more.set()

    async def deliver(self) -> None:
        """Hand everything to `emit`, until it is closed and nothing is left. Cancelling loses the rest."""
        while self._pending or not self._closed:
            await self._more.wait()
            text, self._pending = "".join(self._pending), []
            if not self._closed:
                self._more = trio.Event()
            if text:
                await self._emit(text)

    def _take(self, data: bytes) -> None:
        self.bytes += len(data)
        self._show(self._kept.add(self._filter.feed(data)))
        if self.bytes > self._limit:
            self._over_limit()
        if not data or self.bytes > self._limit:
            self._ended.set()

    def _show(self, text: str) -> None:
        if text:
            self._pending.append(text)
            self._more.set()
