"""What the store is owed of execs that belong to no session: their ends, which were told all the same.

An exec in a session has its end in that session's journal, which owes what the store would not take.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from gateway_trio.log import get_logger
from gateway_trio.store import EndExec, Late, Store, StoreUnavailable

__all__ = ["Debts"]

log = get_logger("execs")

#: Rows that wait. One beyond is left to the next start, which finds an exec without an end, and says so.
_MOST = 10_000


class Debts:
    """Ends of execs, until the store has them. `unsaved` is called when there is something to store."""

    id = ""  #: among the journals of sessions: no session's

    def __init__(self, store: Store, unsaved: Callable[[Debts], object]) -> None:
        self._store = store
        self._unsaved = unsaved
        self._rows: list[Late] = []

    @property
    def settled(self) -> bool:
        """Whether the store has them all."""
        return not self._rows

    def owe(self, row: EndExec) -> None:
        """Note an end that the store has not, or perhaps has not."""
        if len(self._rows) >= _MOST:
            log.warning("too many ends of execs wait for the store", id=row.id)
            return
        self._rows.append(Late(row))
        self._unsaved(self)

    async def put(self, row: EndExec) -> None:
        """Store an end, or owe it. Cancelling owes it, too."""
        try:
            await self._store.commit((row,))
        except StoreUnavailable as fault:
            log.warning("exec's end not stored", id=row.id, error=str(fault))
            self.owe(row)
        except trio.Cancelled:
            self.owe(row)
            raise

    async def save(self) -> None:
        """Store them. Raises `StoreUnavailable`; then, and when cancelled, they are still owed."""
        rows = tuple(self._rows)
        if rows:
            await self._store.commit(rows)
            del self._rows[: len(rows)]
