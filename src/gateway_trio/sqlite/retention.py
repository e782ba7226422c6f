"""What is forgotten, and when: bit by bit, so that no commit waits for a great delete.

Of a session the oldest events go that are more than `keep_events` or older than `keep_days`, but none from the
prompt of something that waits or runs on. Turns and execs that have ended go by age, with the audit. A session
that was not used for `keep_days`, and has nothing that waits or runs, goes whole, but only before the store is
open: afterwards the gateway may have it in memory.

A *step* is one small transaction's worth. The room is used again; the file does not become smaller.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence

__all__ = ["Retention"]

_DAY_SECONDS = 86_400.0

#: How often everything is looked through, beside sessions that grow.
_ROUND_SECONDS = 3600.0

#: Rows that a step deletes at most, and sessions that it looks at.
_STEP = 100

#: What it costs to delete the rest of a session, in rows.
_SESSION_ROWS = 10

_END = object()


class Retention:
    """Forgets rows on a connection, within transactions of its caller's.

    Args:
      db: The connection.
      keep_days: How long what has ended is kept.
      keep_events: How many events of a session are kept, beside those of what waits or runs.
      clock: Returns the time, in Unix seconds.

    """

    def __init__(
        self, db: sqlite3.Connection, *, keep_days: float, keep_events: int, clock: Callable[[], float]
    ) -> None:
        self._db = db
        self._keep_seconds = keep_days * _DAY_SECONDS
        self._keep_events = keep_events
        self._clock = clock
        self._grown: dict[int, None] = {}
        self._steps: Iterator[None] | None = None
        self._next_round = clock()

    def grown(self, ref: int) -> None:
        """Look at this session in one of the next steps."""
        self._grown[ref] = None

    @property
    def due(self) -> bool:
        """Whether a step may find something."""
        return bool(self._grown) or self._steps is not None or self._clock() >= self._next_round

    def step(self) -> bool:
        """Forget a little, if there is something to forget; return whether another step may find more.

        Raises sqlite3's errors; then this round is given up.
        """
        if self._grown:
            ref = next(iter(self._grown))
            last = self._db.execute("SELECT last FROM sessions WHERE ref = ?", (ref,)).fetchone()
            if last is None or not self._trim(ref, *last):
                del self._grown[ref]
            return self.due
        if self._steps is None:
            self._next_round = self._clock() + _ROUND_SECONDS
            self._steps = itertools.chain(self._works(), self._sessions(), self._dropped())
        if next(self._steps, _END) is _END:
            self._steps = None
        return self.due

    def expired(self) -> Sequence[int]:
        """Return the sessions that nobody has used for so long, and in which nothing waits or runs."""
        found = self._db.execute(
            "SELECT ref FROM sessions AS s WHERE at < ? AND NOT EXISTS "
            "(SELECT 1 FROM works WHERE state IN ('queued', 'running') AND session = s.id)",
            (self._clock() - self._keep_seconds,),
        )
        return [ref for (ref,) in found]

    def drop(self, refs: Sequence[int]) -> None:
        """Drop sessions; their events go in later steps."""
        self._db.executemany("INSERT INTO dropped VALUES (?)", [(ref,) for ref in refs])
        self._db.executemany("DELETE FROM sessions WHERE ref = ?", [(ref,) for ref in refs])

    def _works(self) -> Iterator[None]:
        cutoff = self._clock() - self._keep_seconds
        while old := self._db.execute(
            "SELECT n, id FROM works INDEXED BY works_ended "
            "WHERE state NOT IN ('queued', 'running') AND at < ? ORDER BY at LIMIT ?",
            (cutoff, _STEP),
        ).fetchall():
            self._db.executemany("DELETE FROM execs WHERE id = ?", [(id_,) for _, id_ in old])
            self._db.executemany("DELETE FROM works WHERE n = ?", [(n,) for n, _ in old])
            yield

    def _sessions(self) -> Iterator[None]:
        ref = 0
        while found := self._db.execute(
            "SELECT ref, last FROM sessions WHERE ref > ? ORDER BY ref LIMIT ?", (ref, _STEP)
        ).fetchall():
            for ref, last in found:
                while self._trim(ref, last):
                    yield
            yield

    def _trim(self, ref: int, last: int) -> int:
        """Delete some of a session's oldest events; return how many, 0 once there are none to delete."""
        oldest = self._db.execute(
            "SELECT number, at FROM events WHERE session = ? ORDER BY number LIMIT ?", (ref, _STEP)
        ).fetchall()
        cutoff, most = self._clock() - self._keep_seconds, last - self._keep_events
        spare = [n for n, _ in itertools.takewhile(lambda row: row[0] <= most or row[1] < cutoff, oldest)]
        if not spare:
            return 0
        (needed,) = self._db.execute(
            "SELECT min(seq) FROM works WHERE state IN ('queued', 'running') "
            "AND session = (SELECT id FROM sessions WHERE ref = ?)",
            (ref,),
        ).fetchone()
        end = spare[-1] + 1 if needed is None else min(spare[-1] + 1, needed)
        return self._db.execute("DELETE FROM events WHERE session = ? AND number < ?", (ref, end)).rowcount

    def _dropped(self) -> Iterator[None]:
        left = _STEP
        while found := self._db.execute("SELECT ref FROM dropped LIMIT 1").fetchone():
            gone = self._db.execute(
                "DELETE FROM events WHERE rowid IN (SELECT rowid FROM events WHERE session = ? LIMIT ?)",
                (*found, left),
            ).rowcount
            if gone < left:
                self._db.execute("DELETE FROM unended WHERE session = ?", found)
                self._db.execute("DELETE FROM dropped WHERE ref = ?", found)
            left -= gone + _SESSION_ROWS
            if left <= 0:
                left = _STEP
                yield
