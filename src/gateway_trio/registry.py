"""The sessions that there are: those in memory, and with a durable store those that can be brought there."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import trio

from gateway_trio.catch_up import Commits
from gateway_trio.core.event_log import Log
from gateway_trio.core.events import Entry
from gateway_trio.core.history import Reach
from gateway_trio.page_cache import PageCache
from gateway_trio.quota import Quota
from gateway_trio.saver import Saver
from gateway_trio.sessions import DAY_SECONDS, KEYS_KEPT, PastWork, Session, entry_of
from gateway_trio.store import AddSession, SessionRow, Store, StoreUnavailable

if TYPE_CHECKING:
    from gateway_trio.tokens import Principal

__all__ = ["MAX_SESSIONS", "Registry", "TooManySessions"]

#: Sessions in memory. Beyond it the oldest in which nothing runs and that nobody reads leaves it; where the store
#: is not durable it is forgotten with that, and if there is none, new ones are refused.
MAX_SESSIONS = 10_000

#: Sessions that are looked at together for one that may be forgotten.
_PAGE = 100

#: What is read of a session at once, and becomes its log in one pass of the scheduler: a millisecond's worth.
_AT_ONCE_BYTES = 64 * 1024


class TooManySessions(Exception):
    """No room for a new session."""


class Registry:
    """The sessions of a gateway, by id and, for `/chat`, by owner and name.

    With a durable store they are in memory only while they are used: the others are read when somebody asks for
    them. `rests` says of one whether no turn or exec of it waits or runs; the gateway sets it.
    """

    rests: Callable[[Session], bool]

    def __init__(self, store: Store, *, queue_limit: int, keep_bytes: int, each: int) -> None:
        self.queue_limit = queue_limit
        self.keep_bytes = keep_bytes
        self.saver = Saver()
        self.commits = Commits()
        self.quota = Quota(store, each=each, most=None if store.durable else MAX_SESSIONS)
        self._store = store
        self._pages = PageCache()
        self._sessions: dict[str, Session] = {}
        self._named: dict[tuple[str, str], Session] = {}
        self._reading = trio.Lock()

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def __len__(self) -> int:
        return len(self._sessions)

    async def open(self) -> None:
        """Learn from the store, which is open, how many sessions there are."""
        await self.quota.count()

    def find(self, session_id: str) -> Session | None:
        """Return a session that is in memory."""
        return self._sessions.get(session_id)

    async def get(self, session_id: str) -> Session | None:
        """Return a session, from the store if need be; None if there is none. Raises `StoreUnavailable`."""
        if self._store.durable and session_id not in self._sessions:
            await self._read(lambda: self._store.session(session_id))
        return self.find(session_id)

    async def named(self, principal: Principal, name: str) -> Session | None:
        """Return the session that the principal calls so, None if there is none. Raises `StoreUnavailable`."""
        if self._store.durable and (principal.name, name) not in self._named:
            await self._read(lambda: self._store.named(principal.name, name))
        return self._named.get((principal.name, name))

    async def rows(self, owner: str | None, *, skip: int, limit: int) -> Sequence[SessionRow]:
        """Return one principal's sessions, or for None all; the newest first. Raises `StoreUnavailable`."""
        return await self._store.sessions(owner, skip=skip, limit=limit)

    async def create(self, principal: Principal, name: str | None = None) -> Session:
        """Make a session, stored. Raises `StoreUnavailable` and `TooManySessions`."""
        row = AddSession("s" + secrets.token_hex(8), principal.name, name, secrets.token_hex(4))
        with self.quota.making(row.owner):
            await self._make_room(row.owner)
            # Two sockets may ask for the same name at once: the first one stands.
            async with self._reading if name is not None else contextlib.nullcontext():
                if name is not None and (other := self._named.get((row.owner, name))) is not None:
                    return other
                await self.quota.add(row)
        return self._keep(row, Log(self.keep_bytes, backed=self._store.durable))

    async def _read(self, row_of: Callable[[], Awaitable[SessionRow | None]]) -> None:
        """Bring a session into memory, by one reader at a time, so that there is one object of each."""
        async with self._reading:
            row = await row_of()
            if row is None or row.id in self._sessions:
                return
            keyed = await self._store.keyed(row.id, KEYS_KEPT, since=time.time() - DAY_SECONDS)
            log = Log.restored(self.keep_bytes, row.last)
            reach = Reach(self.keep_bytes)
            newest = await self._tail(row.id, reach)
            before = newest[0][0].number if newest else 1
            for take, pages in (
                (log.recall, await self._conversation(row.id, before, reach)),
                (log.restore, newest),
            ):
                for page in pages:
                    take(page)
                    await trio.lowlevel.checkpoint()
            session = self._keep(row, log)
            for work in keyed:
                if work.key is not None and work.outcome is not None:
                    past = PastWork(work.id, work.digest, session, work.outcome, work.outcome_at)
                    session.remember(work.key, past, work.at)

    async def _tail(self, session_id: str, reach: Reach) -> list[list[Entry]]:
        """Read a session's newest events as pages, the oldest first: all at once would hold everybody else up."""
        pages: list[list[Entry]] = []
        left, before = self.keep_bytes, None
        while left > 0:
            rows = await self._store.tail(session_id, before=before, keep_bytes=min(left, _AT_ONCE_BYTES))
            if not rows:
                break
            pages.append([entry_of(row) for row in rows])
            reach.take(pages[-1])
            before = rows[0].number
            left -= sum(entry.bytes for entry in pages[-1])
        return pages[::-1]

    async def _conversation(self, session_id: str, before: int, reach: Reach) -> list[list[Entry]]:
        """Read on backwards from there, and of the conversation alone: what the history takes, as `_tail` does."""
        pages: list[list[Entry]] = []
        while before > 1 and not reach.reached:
            rows = await self._store.conversation(session_id, before=before, keep_bytes=_AT_ONCE_BYTES)
            if not rows:
                break
            pages.append([entry_of(row) for row in rows])
            reach.take(pages[-1])
            before = rows[0].number
        return pages[::-1]

    def _keep(self, row: AddSession | SessionRow, log: Log) -> Session:
        session = Session(
            row, log, self._store, self.saver, self.commits, pages=self._pages, queue_limit=self.queue_limit
        )
        self._enter(session)
        if self._store.durable and len(self._sessions) > MAX_SESSIONS:
            for other in self._sessions.values():
                if other is not session and self._unused(other):
                    self._leave(other)
                    break
        return session

    def _enter(self, session: Session) -> None:
        self._sessions[session.id] = session
        if session.name is not None:
            self._named[session.owner, session.name] = session

    def _leave(self, session: Session) -> None:
        del self._sessions[session.id]
        if session.name is not None:
            del self._named[session.owner, session.name]

    async def _drop(self, session_id: str, owner: str) -> None:
        """Let nothing of a session be left. Raises `StoreUnavailable`; it is then as it was."""
        session = self.find(session_id)
        if session is not None:
            self._leave(session)  # before it is waited for: nobody is to begin anything in it
        try:
            await self.quota.drop(session_id, owner)
        except StoreUnavailable:
            if session is not None:
                self._enter(session)
            raise

    def _unused(self, session: Session) -> bool:
        return not session.in_hand and session.settled and self.rests(session)

    async def _make_room(self, owner: str) -> None:
        """Forget the oldest session that may be, where there is one too many: of this owner's, or else of all.

        One at a time; and none is read meanwhile, so that nobody gets one that is about to go.
        """
        if self.quota.crowd(owner) is None and self.quota.certain:
            return
        async with self._reading:
            if not self.quota.certain:
                await self.quota.count()
            if (crowd := self.quota.crowd(owner)) is not None:
                await self._forget_one(*crowd)

    async def _forget_one(self, owner: str | None, there: int, limit: int) -> None:
        for end in range(there, 0, -_PAGE):
            rows = await self._store.sessions(owner, skip=max(end - _PAGE, 0), limit=min(end, _PAGE))
            for row in reversed(rows):
                session = self.find(row.id)
                if session is None or self._unused(session):
                    await self._drop(row.id, row.owner)
                    return
        raise TooManySessions(f"there are {limit} sessions, and each is in use")
