"""Where much text goes: to a stream, or to a file that is there only when it is complete.

It is written in a thread, so that a pager which nobody scrolls, or a slow disk, holds up nothing but the writing.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import TextIO

import trio

from gateway_trio.standard_streams import writing

__all__ = ["Outlet", "file_outlet", "stream_outlet"]

#: Characters that wait until there are enough of them to be written.
_BATCH_CHARS = 64 * 1024


class Outlet:
    """Text in, bytes to a descriptor. `waits` says that it may take for ever, and is left when it is cancelled."""

    def __init__(self, descriptor: int, encoding: str, *, waits: bool) -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._waits = waits
        self._texts: list[str] = []
        self._chars = 0

    async def write(self, text: str) -> None:
        """Take text. Raises OSError. When it is cancelled, some of it may be written."""
        self._texts.append(text)
        self._chars += len(text)
        if self._chars >= _BATCH_CHARS:
            await self.flush()

    async def flush(self) -> None:
        """Write what waits. Raises OSError."""
        data = "".join(self._texts).encode(self._encoding, "replace")
        self._texts, self._chars = [], 0
        writing = partial(_write_all, self._descriptor, data)
        await trio.to_thread.run_sync(writing, abandon_on_cancel=self._waits)


@contextlib.asynccontextmanager
async def stream_outlet(stream: TextIO) -> AsyncIterator[Outlet]:
    """Write to a stream's descriptor: Python's own buffer would be waited for at exit."""
    stream.flush()
    outlet = Outlet(stream.fileno(), stream.encoding, waits=True)
    yield outlet
    await outlet.flush()


@contextlib.asynccontextmanager
async def file_outlet(path: Path) -> AsyncIterator[Outlet]:
    """Write to a file, mode 0600, which takes the place of what had its name when the block has ended well.

    Until then, and for ever where it ends otherwise, there is what was there before. A link stays one, to the new
    file. What is no file, such as a device or a pipe, is written to as it is. Raises OSError.
    """
    path = Path(await trio.to_thread.run_sync(os.path.realpath, path))
    if not await trio.to_thread.run_sync(_can_be_replaced, path):
        async with _device_outlet(path) as outlet:
            yield outlet
        return
    make = partial(tempfile.mkstemp, prefix=f".{path.name[:100]}.", dir=path.parent)
    descriptor, name = await trio.to_thread.run_sync(make)
    beside = Path(name)
    try:
        try:
            outlet = Outlet(descriptor, "utf-8", waits=False)
            yield outlet
            await outlet.flush()
            await trio.to_thread.run_sync(os.fsync, descriptor)
        finally:
            os.close(descriptor)
        await trio.to_thread.run_sync(beside.replace, path)
    except BaseException:
        beside.unlink(missing_ok=True)  # noqa: ASYNC240 - at once, whoever is cancelled
        raise


def _can_be_replaced(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return True


@contextlib.asynccontextmanager
async def _device_outlet(path: Path) -> AsyncIterator[Outlet]:
    opening = partial(os.open, path, os.O_WRONLY)
    descriptor = await trio.to_thread.run_sync(opening, abandon_on_cancel=True)  # a pipe waits for its reader
    try:
        outlet = Outlet(descriptor, "utf-8", waits=True)
        yield outlet
        await outlet.flush()
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    with writing():
        while left:
            left = left[os.write(descriptor, left) :]
