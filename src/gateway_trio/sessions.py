"""One session: its log, its conversation, its keys, and who reads it.

A `Session` is a plain object and has no task of its own. How its log grows is in `journal.py`, and which sessions
there are in `registry.py`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import trio
from attrs import define, field

from gateway_trio.agents import Usage
from gateway_trio.catch_up import Commits
from gateway_trio.core.commands import Role
from gateway_trio.core.cursor import Missing
from gateway_trio.core.event_log import Log
from gateway_trio.core.events import Change, Entry
from gateway_trio.core.jsonrpc import Problem
from gateway_trio.core.session import Conversation
from gateway_trio.core.text import Text
from gateway_trio.journal import Journal, Reader
from gateway_trio.page_cache import PageCache
from gateway_trio.saver import Saver
from gateway_trio.store import AddSession, EventRow, SessionRow, Store

if TYPE_CHECKING:
    from gateway_trio.permissions import Request
    from gateway_trio.tokens import Principal
    from gateway_trio.turn import Turn

__all__ = ["DAY_SECONDS", "KEYS_KEPT", "KEYS_OF_A_DAY", "PastWork", "Session", "Work", "entry_of"]

#: Idempotency keys that a session remembers: the newest, and as many of the last day as it can.
KEYS_KEPT = 1000
KEYS_OF_A_DAY = 50_000
DAY_SECONDS = 86_400.0

#: What is read of a store at a time, for one cursor.
_PAGE_BYTES = 32 * 1024


class Work(Protocol):
    """A turn or an exec: what a key can name and a request can wait for."""

    id: str
    digest: str
    ended: Change | None  #: its outcome, once it has one
    ended_at: int  #: the number of the event with the outcome
    refused: list[Callable[[Problem], object]]  #: called if its outcome will not come: it could not be stored
    left: Problem | None  #: why its outcome will not come in this run of the program, though it is stored

    @property
    def session(self) -> Session | None:
        """Where its events stand; None for an exec that belongs to no session."""


@define
class PastWork:
    """A turn or an exec that has its outcome: only its key is still of use."""

    id: str
    digest: str
    session: Session
    ended: Change | None
    ended_at: int
    refused: list[Callable[[Problem], object]] = field(factory=list)
    left: Problem | None = None


class Session(Journal):
    """One conversation, owned by a principal. `name` is what `/chat` calls it; None for one made by `/acp`."""

    def __init__(
        self,
        row: AddSession | SessionRow,
        log: Log,
        store: Store,
        saver: Saver,
        commits: Commits,
        *,
        pages: PageCache,
        queue_limit: int,
    ) -> None:
        super().__init__(row.id, log, store, saver.add, commits)
        self.owner = row.owner
        self.name = row.name
        self.epoch = row.epoch
        self.conversation: Conversation[Turn] = Conversation(queue_limit)
        self.usage: Usage | None = None  #: the newest; told, not stored
        self.requests: dict[str, Request] = {}  #: the open permission requests, by id
        self._keyed: dict[str, tuple[Work, float]] = {}
        self._holders = 0
        self._pages = pages
        self._paging = trio.Lock()

    @property
    def in_hand(self) -> bool:
        """Whether somebody reads it, or is about to."""
        return bool(self.readers or self._holders)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep it in memory meanwhile."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1

    def allows(self, principal: Principal) -> bool:
        """Whether this principal may see and use the session: its owner, and every admin."""
        return principal.name == self.owner or principal.role is Role.ADMIN

    def kept_page(self, asked: Missing) -> Sequence[Entry] | None:
        """Return what a cursor asked for, if it was read a short while ago."""
        return self._pages.get(self.id, asked.start)

    async def page(self, asked: Missing) -> Sequence[Entry]:
        """Return stored events from where a cursor asks for them, a page. Raises `StoreUnavailable`.

        One at a time reads the store, so that those behind it find the page that they want.
        """
        async with self._paging:
            page = self.kept_page(asked)
            if page is None:
                rows = await self._store.events(self.id, asked.start, keep_bytes=_PAGE_BYTES)
                page = [entry_of(row) for row in rows if row.number < asked.before]
                self._pages.put(self.id, asked.start, page)
            return page

    async def entry(self, number: int) -> Entry | None:
        """Return an event from the log or the store, None if it is not kept. Raises `StoreUnavailable`."""
        found = self.log.get(number)
        if found is None and self.log.backed:
            rows = await self._store.events(self.id, number, keep_bytes=1)
            found = entry_of(rows[0]) if rows and rows[0].number == number else None
        return found

    async def keeps(self, number: int) -> bool:
        """Return whether an event can still be read, from the log or the store. Raises `StoreUnavailable`."""
        return number > self.log.trimmed or await self.entry(number) is not None

    async def growing(self, after: int) -> Sequence[int]:
        """Return the stored messages up to `after` that were unfinished then. Raises `StoreUnavailable`."""
        return await self._store.growing(self.id, after) if self.log.backed and self.log.trimmed else ()

    def join(self, reader: Reader) -> None:
        """A connection reads the session from now on."""
        self.readers.add(reader)
        self._attended()

    def leave(self, reader: Reader) -> None:
        """A connection reads it no more. Permission requests lapse some time after the last one."""
        self.readers.discard(reader)
        self._attended()

    def _attended(self) -> None:
        for request in self.requests.values():
            request.attended(anybody=bool(self.readers))

    def settle(self, key: str | None, work: Work) -> None:
        """Keep no more of what a key named than the key needs, now that it has its outcome."""
        found = None if key is None else self._keyed.get(key)
        if key is not None and found is not None and found[0] is work:
            past = PastWork(work.id, work.digest, self, work.ended, work.ended_at)
            self._keyed[key] = past, found[1]

    def joined(self, key: str | None) -> Work | None:
        """Return the turn or exec that this idempotency key named before."""
        found = None if key is None else self._keyed.get(key)
        return None if found is None else found[0]

    def remember(self, key: str | None, work: Work, at: float) -> None:
        """Let a key name a turn or an exec that was sent at a time (Unix seconds).

        The newest `KEYS_KEPT` are kept, and up to `KEYS_OF_A_DAY` that are not a day older than the newest. So are
        those of what has not ended, however old: else it could run twice at once.
        """
        if key is None:
            return
        self._keyed[key] = work, at
        if len(self._keyed) > KEYS_KEPT:
            ended = ((old, since) for old, (of, since) in self._keyed.items() if of.ended is not None)
            oldest, since = next(ended, ("", math.inf))
            if since < at - DAY_SECONDS or (oldest and len(self._keyed) > KEYS_OF_A_DAY):
                del self._keyed[oldest]

    def forget(self, key: str | None, work: Work) -> None:
        """Let a key name nothing again: what it named could not be stored, and never began."""
        if key is not None and self.joined(key) is work:
            del self._keyed[key]


def entry_of(row: EventRow) -> Entry:
    """Return a stored event as an entry of a log; messages of those are closed."""
    return Entry(row.number, row.owner, row.body, row.admin, text=Text(row.text))
