"""The one connection that writes: it opens the database, carries out commits together, and forgets a little.

Everything here runs on the writer's thread.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gateway_trio.sqlite.changes import Changes
from gateway_trio.sqlite.faults import sentence
from gateway_trio.sqlite.lock import Lock
from gateway_trio.sqlite.retention import Retention
from gateway_trio.sqlite.schema import migrate, version_of
from gateway_trio.store import StoreUnavailable
from gateway_trio.worker import Job

__all__ = ["Writer"]

#: How long another program, a backup perhaps, may hold the database before commits are refused.
_BUSY_SECONDS = 2.0

#: What the write-ahead log shrinks back to after it had to be larger.
_JOURNAL_BYTES = 64 * 2**20

#: Sessions that are dropped in one transaction at the start.
_DROP = 1000


class Writer:
    """Carries out the jobs of the writer's thread, whose work is a sequence of changes each.

    Args:
      path: The database's, absolute.
      retention: Makes the `Retention` of a connection.
      clock: Returns the time, in Unix seconds.

    """

    def __init__(
        self, path: Path, retention: Callable[[sqlite3.Connection], Retention], clock: Callable[[], float]
    ) -> None:
        self._path = path
        self._make_retention = retention
        self._clock = clock
        self._open = contextlib.ExitStack()

    def open(self) -> None:
        """Take the lock, make or migrate the database, drop what has expired. Raises `StoreUnavailable`."""
        try:
            self._path = Path(os.path.realpath(self._path))  # so that one file has one lock
            _make_directory(self._path.parent)
            self._open.enter_context(Lock(self._path))
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would go by the umask
            self._connect()
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(sentence(self._path, error)) from error

    def _connect(self) -> None:
        db = self._db = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, isolation_level=None)
        self._open.callback(db.close)
        version_of(db, self._path)  # before anything is changed
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA journal_size_limit = {_JOURNAL_BYTES}")
        migrate(db, self._path)
        self._retention = self._make_retention(db)
        self._changes = Changes(db, self._retention.grown)
        expired = self._retention.expired()
        for start in range(0, len(expired), _DROP):
            with self._transaction():
                self._retention.drop(expired[start : start + _DROP])
        self._open.callback(self._checkpoint)

    def run(self, jobs: Sequence[Job]) -> None:
        """Commit the jobs' changes together, each for itself all or none.

        What went wrong stands in a job's `error`: `StoreUnavailable`, or whatever its changes made of a bug.
        """
        try:
            if not self._together(jobs):
                with self._transaction():
                    for job in jobs:
                        self._apart(job)
        except sqlite3.Error as error:
            why = sentence(self._path, error)
            for job in jobs:
                job.error = job.error or StoreUnavailable(why)

    def rest(self) -> bool:
        """Forget a little, and return whether there is more. Where that fails, the next commits tell why."""
        if not self._retention.due:
            return False
        with contextlib.suppress(sqlite3.Error), self._transaction():
            return self._retention.step()
        return False

    def _together(self, jobs: Sequence[Job]) -> bool:
        """Carry out all jobs' changes, or none of them and return False: something in one of them did not fit.

        That is rare, and the savepoints of `_apart` are a quarter of the statements.
        """
        try:
            with self._transaction():
                try:
                    for job in jobs:
                        self._carry_out(job)
                except Exception as error:
                    raise _Unfit from error
        except _Unfit:
            return False
        return True

    def _carry_out(self, job: Job) -> None:
        now = self._clock()
        for change in job.work:
            self._changes.apply(change, now)

    def _apart(self, job: Job) -> None:
        """Carry out one job's changes, or none of them and leave the others'. Raises where these are gone too."""
        self._db.execute("SAVEPOINT apart")
        try:
            self._carry_out(job)
        except Exception as error:
            if not self._db.in_transaction:  # a full disk, say: SQLite has rolled everything back
                raise
            self._db.execute("ROLLBACK TO apart")
            why = sentence(self._path, error) if isinstance(error, sqlite3.Error) else None
            job.error = error if why is None else StoreUnavailable(why)
        self._db.execute("RELEASE apart")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def close(self) -> None:
        """Put what was written into the database itself, and let go of it and the lock, in that order."""
        self._open.close()

    def _checkpoint(self) -> None:
        with contextlib.suppress(
            sqlite3.Error
        ):  # it stands in the log, and the next one that opens it finds it there
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class _Unfit(Exception):
    """Something in a batch does not fit: nothing of it is carried out."""


def _make_directory(path: Path) -> None:
    """Make a directory and those above it, for this user alone (XDG base directory specification, 0.8)."""
    for missing in reversed([path, *path.parents]):
        missing.mkdir(mode=0o700, exist_ok=True)
