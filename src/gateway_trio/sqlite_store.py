"""The store on disk: what was told is there after a `kill -9`, a full disk, a power cut.

SQLite with a write-ahead log that is synced at each commit. A thread writes, and commits together what came while
it was writing; another one reads. The gateway's loop waits for neither, and neither uses Trio's threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gateway_trio.sqlite import reads
from gateway_trio.sqlite.reader import Reader
from gateway_trio.sqlite.retention import Retention
from gateway_trio.sqlite.writer import Writer
from gateway_trio.store import Change, EventRow, SessionRow, StoreUnavailable, Work
from gateway_trio.worker import Worker

__all__ = ["SqliteStore"]

#: Commits and reads that are with their thread; those beyond wait.
_MOST_COMMITS = 1024
_MOST_READS = 64

#: Commits that share a sync.
_TOGETHER = 256


class SqliteStore:
    """A database in one file, which one gateway at a time has open.

    Args:
      path: The file's. It is made, with its directory, if it is not there; nobody else may read it. Beside it
        stand `-wal` and `-shm`, which are SQLite's, `.lock` and `.starting`.
      keep_days: How long what has ended is kept: events, turns, execs, and sessions that nobody uses.
      keep_events: How many events of a session are kept, the newest; beyond them those of what waits or runs.
      clock: Returns the time, in Unix seconds.

    """

    durable = True

    def __init__(
        self,
        path: str | Path,
        *,
        keep_days: float = 90,
        keep_events: int = 200_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._path = Path(path).absolute()
        self.keep_days, self.keep_events = keep_days, keep_events
        retention = partial(Retention, keep_days=keep_days, keep_events=keep_events, clock=clock)
        self._make_writer = partial(Writer, self._path, retention, clock)
        self._writer: Worker | None = None
        self._reader: Worker | None = None

    async def open(self) -> None:
        """Take the lock, make the file or bring it to this version, and drop what has expired.

        Raises `StoreUnavailable` with the reason: who has the lock, what is wrong with the file. A file that
        cannot be used is left as it is. Cancelling leaves at once, and what was opened closes by itself.
        """
        writer = Worker("store-writer", self._make_writer(), most=_MOST_COMMITS, together=_TOGETHER)
        reader = Worker("store-reader", Reader(self._path), most=_MOST_READS, together=1)
        await writer.start()
        try:
            await reader.start()
        except BaseException:
            writer.close_soon()
            raise
        self._writer, self._reader = writer, reader

    async def commit(self, changes: Sequence[Change]) -> None:
        """See `Store`. It returns when the disk has it."""
        if self._writer is None:
            raise StoreUnavailable(f"the store {self._path} is not open")
        await self._writer.ask(tuple(changes))

    async def aclose(self) -> None:
        """Write what was asked for, and let go of the file and its lock. Cancelling leaves that to the threads.

        They do not keep the process from ending.
        """
        if self._writer is None or self._reader is None:
            return
        try:
            await self._reader.aclose()
        finally:
            self._writer.close_soon()
        await self._writer.aclose()

    async def _read(self, read: Callable[..., Any], *arguments: Any) -> Any:
        """Have a read done. Cancelling leaves at once."""
        if self._reader is None:
            raise StoreUnavailable(f"the store {self._path} is not open")
        return await self._reader.ask(lambda db: read(db, *arguments))

    async def session(self, session_id: str) -> SessionRow | None:
        found: SessionRow | None = await self._read(reads.session, session_id)
        return found

    async def named(self, owner: str, name: str) -> SessionRow | None:
        found: SessionRow | None = await self._read(reads.named, owner, name)
        return found

    async def sessions(self, owner: str | None, *, skip: int, limit: int) -> Sequence[SessionRow]:
        found: Sequence[SessionRow] = await self._read(reads.sessions, owner, skip, limit)
        return found

    async def owners(self) -> Mapping[str, int]:
        found: Mapping[str, int] = await self._read(reads.owners)
        return found

    async def events(self, session_id: str, start: int, *, keep_bytes: int) -> Sequence[EventRow]:
        found: Sequence[EventRow] = await self._read(reads.events, session_id, start, keep_bytes)
        return found

    async def tail(self, session_id: str, *, before: int | None = None, keep_bytes: int) -> Sequence[EventRow]:
        found: Sequence[EventRow] = await self._read(reads.tail, session_id, before, keep_bytes)
        return found

    async def conversation(self, session_id: str, *, before: int, keep_bytes: int) -> Sequence[EventRow]:
        found: Sequence[EventRow] = await self._read(reads.conversation, session_id, before, keep_bytes)
        return found

    async def growing(self, session_id: str, after: int) -> Sequence[int]:
        found: Sequence[int] = await self._read(reads.growing, session_id, after)
        return found

    async def keyed(self, session_id: str, limit: int, *, since: float = math.inf) -> Sequence[Work]:
        found: Sequence[Work] = await self._read(reads.keyed, session_id, limit, since)
        return found

    async def unfinished(self) -> Sequence[Work]:
        found: Sequence[Work] = await self._read(reads.unfinished)
        return found
