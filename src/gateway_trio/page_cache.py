"""The last pages that were read of the store, for whoever reads the same session at about the same time.

Fifty clients that load one session would else have each page read, and taken apart, fifty times.

A page holds events that the log had forgotten when it was read. Those are closed and stored, and no transaction
takes them back: so a page is never out of date, but for what retention has deleted since.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from gateway_trio.core.events import Entry

__all__ = ["PAGES_KEPT", "PageCache"]

#: Pages of all sessions; each is of 32 KiB in the store, and a few times that in memory.
PAGES_KEPT = 64


class PageCache:
    """Keeps the pages that were used last, `most` of them: by session and first number."""

    def __init__(self, most: int = PAGES_KEPT) -> None:
        self._pages: OrderedDict[tuple[str, int], Sequence[Entry]] = OrderedDict()
        self._most = most

    def get(self, session_id: str, start: int) -> Sequence[Entry] | None:
        """Return the page that starts at a number, None if it is not here."""
        page = self._pages.get((session_id, start))
        if page is not None:
            self._pages.move_to_end((session_id, start))
        return page

    def put(self, session_id: str, start: int, page: Sequence[Entry]) -> None:
        """Keep a page. One that has nothing is not kept: there may be something before the log's first soon."""
        if page:
            self._pages[session_id, start] = page
            if len(self._pages) > self._most:
                self._pages.popitem(last=False)
