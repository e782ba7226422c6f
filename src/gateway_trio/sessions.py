"""The sessions that there are: each with its log, its conversation, and who reads it.

A `Session` is a plain object; none has a task of its own. `record` is the only way to a new number in its log:
one transaction first, the log after it, one writer at a time, so that numbers have no gaps and nobody is shown
what is not stored.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import trio

from gateway_trio.agents import Usage
from gateway_trio.core.commands import Role
from gateway_trio.core.events import Body, Change, Entry, Kind, Log
from gateway_trio.core.jsonrpc import Problem
from gateway_trio.core.session import Conversation
from gateway_trio.log import get_logger
from gateway_trio.store import AddEvent, AddSession, Store, StoreUnavailable
from gateway_trio.store import Change as Row

if TYPE_CHECKING:
    from gateway_trio.permissions import Request
    from gateway_trio.tokens import Principal
    from gateway_trio.turn import Turn

__all__ = ["Over", "Reader", "Registry", "Session", "TooManySessions", "Work"]

log = get_logger("sessions")

#: Sessions in memory. Beyond it the oldest in which nothing runs and that nobody reads is forgotten; if there is
#: none, new ones are refused.
MAX_SESSIONS = 10_000


#: Idempotency keys that a session remembers.
KEYS_KEPT = 1000


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


class Reader(Protocol):
    """A connection that has a cursor on a session."""

    def poke(self) -> None:
        """There may be something to pull."""


class Over(Exception):
    """Raised by `record` instead of writing: whoever wrote has its outcome already."""


class TooManySessions(Exception):
    """No room for a new session."""


class Session:
    """One conversation, owned by a principal. `name` is what `/chat` calls it; None for one made by `/acp`."""

    def __init__(self, row: AddSession, store: Store, *, queue_limit: int, keep_bytes: int) -> None:
        self.id = row.id
        self.owner = row.owner
        self.name = row.name
        self.epoch = secrets.token_hex(4)
        self.log = Log(keep_bytes)
        self.conversation: Conversation[Turn] = Conversation(queue_limit)
        self.usage: Usage | None = None  #: the newest; told, not stored
        self.readers: set[Reader] = set()  #: see `join` and `leave`
        self.requests: dict[str, Request] = {}  #: the open permission requests, by id
        self._keyed: dict[str, Work] = {}
        self._store = store
        self._writing = trio.Lock()

    def allows(self, principal: Principal) -> bool:
        """Whether this principal may see and use the session: its owner, and every admin."""
        return principal.name == self.owner or principal.role is Role.ADMIN

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
        """Let a key name a turn or an exec, unless that is refused after all. The newest keys are kept."""
        if key is None:
            return
        self._keyed[key] = work
        work.refused.append(lambda _: self._keyed.pop(key, None))
        if len(self._keyed) > KEYS_KEPT:
            del self._keyed[next(iter(self._keyed))]

    async def record(
        self,
        owner: str,
        bodies: Callable[[int], Sequence[Body]],
        *rows: Row,
        admin: bool = False,
        over: Callable[[], bool] = lambda: False,
    ) -> list[Entry]:
        """Store and then log events of one owner, in one transaction with `rows`.

        `bodies` is called with the number that the first of them will have. Raises `StoreUnavailable`, and `Over`
        if `over()` says so once it is this writer's turn. Cancelling before the commit leaves nothing.
        """
        async with self._writing:
            if over():
                raise Over
            first = self.log.last + 1
            made = list(bodies(first))
            events = (AddEvent(self.id, first + i, owner, body, admin) for i, body in enumerate(made))
            await self._store.commit((*events, *rows))
            if over():  # the store took so long that the outcome did not wait for it
                raise Over
            entries = [self.log.append(owner, body, admin=admin) for body in made]
        self.wake()
        return entries

    def insist(self, owner: str, bodies: Callable[[int], Sequence[Body]], *, admin: bool = False) -> list[Entry]:
        """Log without storing: for an outcome that the store would not take, so that nobody waits for ever."""
        entries = [self.log.append(owner, body, admin=admin) for body in bodies(self.log.last + 1)]
        self.wake()
        return entries

    async def put(
        self, owner: str, bodies: Callable[[int], Sequence[Body]], *rows: Row, admin: bool = False
    ) -> list[Entry]:
        """Store and log, or where the store would not take it, log alone: what an exec says must arrive."""
        try:
            return await self.record(owner, bodies, *rows, admin=admin)
        except StoreUnavailable as fault:
            log.warning("not stored", session=self.id, owner=owner, error=str(fault))
            return self.insist(owner, bodies, admin=admin)

    async def say(self, owner: str, kind: Kind, text: str, open_message: Callable[[], Awaitable[object]]) -> None:
        """Append to the owner's open message; `open_message` opens one where there is none or it is full."""
        while text:
            room = self.log.room(owner, kind)
            if not room:
                await open_message()
                continue
            self.log.say(owner, text[:room])
            text = text[room:]
        self.wake()

    def wake(self) -> None:
        """Tell every reader that there is something to pull."""
        for reader in self.readers:
            reader.poke()


class Registry:
    """All sessions of a gateway, by id and, for `/chat`, by owner and name."""

    def __init__(self, store: Store, *, queue_limit: int, keep_bytes: int, each: int) -> None:
        self.queue_limit = queue_limit
        self.keep_bytes = keep_bytes
        self.each = each  #: sessions that one principal may have
        self._store = store
        self._sessions: dict[str, Session] = {}
        self._named: dict[tuple[str, str], Session] = {}
        self._owned: Counter[str] = Counter()  #: those of each principal, and those that are being made

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, session_id: str) -> Session | None:
        return self._sessions.get(session_id)

    def named(self, principal: Principal, name: str) -> Session | None:
        return self._named.get((principal.name, name))

    async def create(self, principal: Principal, name: str | None = None) -> Session:
        """Make a session, stored. Raises `StoreUnavailable` and `TooManySessions`."""
        self._make_room(principal.name)
        row = AddSession("s" + secrets.token_hex(8), principal.name, name)
        self._owned[row.owner] += 1
        made = False
        try:
            await self._store.commit((row,))
            # Two sockets may have asked for the same name while the store wrote: the first one stands.
            if name is not None and (other := self.named(principal, name)) is not None:
                return other
            made = True
        finally:
            if not made:
                self._owned[row.owner] -= 1
        session = Session(row, self._store, queue_limit=self.queue_limit, keep_bytes=self.keep_bytes)
        self._sessions[row.id] = session
        if name is not None:
            self._named[principal.name, name] = session
        return session

    def forget(self, session: Session) -> None:
        del self._sessions[session.id]
        self._owned[session.owner] -= 1
        self._owned += Counter()  # forgets those that have none
        if session.name is not None:
            del self._named[session.owner, session.name]

    def _make_room(self, owner: str) -> None:
        """Forget the oldest session that may be: of this owner's, if those are too many, or else of all."""
        if self._owned[owner] >= self.each:
            self._forget_one([s for s in self._sessions.values() if s.owner == owner], self.each)
        elif len(self._sessions) >= MAX_SESSIONS:
            self._forget_one(list(self._sessions.values()), MAX_SESSIONS)

    def _forget_one(self, sessions: Sequence[Session], limit: int) -> None:
        for session in sessions:
            if not session.readers and session.conversation.idle:
                self.forget(session)
                return
        raise TooManySessions(f"there are {limit} sessions, and each is in use")
