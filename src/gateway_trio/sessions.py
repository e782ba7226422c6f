"""The sessions that there are: each with its log, its conversation, and who reads it.

A `Session` is a plain object; none has a task of its own. How its log grows is in `journal.py`.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import trio
from attrs import define, field

from gateway_trio.agents import Usage
from gateway_trio.catch_up import Commits
from gateway_trio.core.commands import Role
from gateway_trio.core.events import Change, Entry, Log
from gateway_trio.core.jsonrpc import Problem
from gateway_trio.core.session import Conversation
from gateway_trio.core.text import Text
from gateway_trio.journal import Journal, Reader
from gateway_trio.quota import Quota
from gateway_trio.saver import Saver
from gateway_trio.store import AddSession, EventRow, SessionRow, Store, StoreUnavailable

if TYPE_CHECKING:
    from gateway_trio.permissions import Request
    from gateway_trio.tokens import Principal
    from gateway_trio.turn import Turn

__all__ = ["MAX_SESSIONS", "PastWork", "Registry", "Session", "TooManySessions", "Work", "entry_of"]

#: Sessions in memory. Beyond it the oldest in which nothing runs and that nobody reads leaves it; where the store
#: is not durable it is forgotten with that, and if there is none, new ones are refused.
MAX_SESSIONS = 10_000

#: Idempotency keys that a session remembers.
KEYS_KEPT = 1000

#: What is read of a store at a time, for one cursor.
_PAGE_BYTES = 32 * 1024

#: Sessions that are looked at together for one that may be forgotten.
_PAGE = 100


class Work(Protocol):
    """A turn or an exec: what a key can name and a request can wait for."""

    id: str
    digest: str
    ended: Change | None  #: its outcome, once it has one
    ended_at: int  #: the number of the event with the outcome
    refused: list[Callable[[Problem], object]]  #: called if it could not be stored, and then never began

    @property
    def session(self) -> Session | None:
        """Where its events stand; None for an exec that belongs to no session."""


@define
class PastWork:
    """A turn or an exec of an earlier run of the program: it has its outcome, and only its key is of use."""

    id: str
    digest: str
    session: Session
    ended: Change | None
    ended_at: int
    refused: list[Callable[[Problem], object]] = field(factory=list)


class TooManySessions(Exception):
    """No room for a new session."""


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
        queue_limit: int,
    ) -> None:
        super().__init__(row.id, log, store, saver.add, commits)
        self.owner = row.owner
        self.name = row.name
        self.epoch = row.epoch
        self.conversation: Conversation[Turn] = Conversation(queue_limit)
        self.usage: Usage | None = None  #: the newest; told, not stored
        self.requests: dict[str, Request] = {}  #: the open permission requests, by id
        self._keyed: dict[str, Work] = {}
        self._holders = 0

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

    async def page(self, start: int) -> list[Entry]:
        """Return stored events from `start` on, as many as are read at a time. Raises `StoreUnavailable`."""
        return [entry_of(row) for row in await self._store.events(self.id, start, keep_bytes=_PAGE_BYTES)]

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

    def joined(self, key: str | None) -> Work | None:
        """Return the turn or exec that this idempotency key named before."""
        return None if key is None else self._keyed.get(key)

    def remember(self, key: str | None, work: Work) -> None:
        """Let a key name a turn or an exec, unless that is refused after all.

        The newest keys are kept, and those of what has not ended, however old: else it could run twice at once.
        """
        if key is None:
            return
        self._keyed[key] = work
        work.refused.append(lambda _: self._keyed.pop(key, None))
        if len(self._keyed) > KEYS_KEPT:
            ended = (old for old, of in self._keyed.items() if of.ended is not None)
            if (oldest := next(ended, None)) is not None:
                del self._keyed[oldest]


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
            tail = await self._store.tail(row.id, keep_bytes=self.keep_bytes)
            keyed = await self._store.keyed(row.id, KEYS_KEPT)
            log = Log.restored(self.keep_bytes, row.last, map(entry_of, tail))
            session = self._keep(row, log)
            for work in keyed:
                if work.key is not None and work.outcome is not None:
                    past = PastWork(work.id, work.digest, session, work.outcome, work.outcome_at)
                    session.remember(work.key, past)

    def _keep(self, row: AddSession | SessionRow, log: Log) -> Session:
        session = Session(row, log, self._store, self.saver, self.commits, queue_limit=self.queue_limit)
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


def entry_of(row: EventRow) -> Entry:
    """Return a stored event as an entry of a log; messages of those are closed."""
    return Entry(row.number, row.owner, row.body, row.admin, text=Text(row.text))
