"""The connection that reads: it cannot write, and it sees whole commits only.

Everything here runs on the reader's thread.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from gateway_trio.sqlite.faults import sentence
from gateway_trio.store import StoreUnavailable
from gateway_trio.worker import Job

__all__ = ["Reader"]


class Reader:
    """Carries out the jobs of the reader's thread, whose work is a function of the connection each.

    `path` is the database's, absolute; the writer has opened it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open = contextlib.ExitStack()

    def open(self) -> None:
        """Connect. Raises `StoreUnavailable`."""
        try:
            self._db = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True, isolation_level=None)
            self._open.callback(self._db.close)
            self._db.execute("PRAGMA query_only = 1")
        except sqlite3.Error as error:
            raise StoreUnavailable(sentence(self._path, error)) from error

    def run(self, jobs: Sequence[Job]) -> None:
        """Read for those who still wait."""
        for job in jobs:
            if job.given_up:
                continue
            try:
                job.result = job.work(self._db)
            except sqlite3.Error as error:
                job.error = StoreUnavailable(sentence(self._path, error))

    def rest(self) -> bool:
        """Nothing."""
        return False

    def close(self) -> None:
        """Disconnect."""
        self._open.close()
