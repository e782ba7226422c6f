"""The store that forgets everything at exit.

The gateway's sessions have their texts and events in their logs, which are bounded, so that this one keeps no
second copy of them unless it is told to. The newest rows of each kind are kept.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import trio
from attrs import define, evolve, field

from gateway_trio.core import events as ev
from gateway_trio.core.history import in_conversation
from gateway_trio.core.session import OUTCOMES, TurnState
from gateway_trio.store import (
    AddEvent,
    AddExec,
    AddSession,
    AddTurn,
    Change,
    DropSession,
    EndExec,
    EventRow,
    Late,
    MoveTurn,
    Retract,
    SessionRow,
    SetText,
    StoreUnavailable,
    Work,
)
from gateway_trio.undo import Undo

__all__ = ["MemoryStore"]

#: What an event is taken to cost beside its text.
_EVENT_BYTES = 300


@define
class _Session:
    row: AddSession
    last: int = 0
    events: OrderedDict[int, EventRow] = field(factory=OrderedDict)


class MemoryStore:
    """Keeps the newest `keep` sessions, turns and execs, and of each session the newest `keep_events` events.

    No event by default, and no turn that has ended: a gateway with this store reads none back. `execs` has the
    audit of each exec: its row before the process and, once it has ended, the one after it.
    """

    durable = False

    def __init__(self, keep: int = 10_000, keep_events: int = 0) -> None:
        self.execs: OrderedDict[str, tuple[AddExec, EndExec | None]] = OrderedDict()
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._works: OrderedDict[str, Work] = OrderedDict()
        self._keep = keep
        self._keep_events = keep_events

    async def open(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to do."""

    def take_over(self, other: MemoryStore) -> None:
        """Hold what another one holds now; what is committed to that one later is not in this one."""
        self.execs = other.execs.copy()
        self._works = other._works.copy()
        for id_, session in other._sessions.items():
            self._sessions[id_] = _Session(session.row, session.last, session.events.copy())

    # --- changes ---

    async def commit(self, changes: Sequence[Change]) -> None:
        """Carry out all changes at once; a checkpoint follows."""
        undo = Undo()
        try:
            for change in changes:
                self._apply(change, undo)
        except StoreUnavailable:
            undo.take_back()
            raise
        self._trim(changes)
        await trio.lowlevel.checkpoint()

    def _apply(self, change: Change, undo: Undo) -> None:  # noqa: C901, PLR0912 - a table
        match change:
            case AddSession():
                _new(self._sessions, change.id, "session")
                if change.name is not None and self._named(change.owner, change.name) is not None:
                    raise StoreUnavailable(f"{change.owner} has a session {change.name!r}")
                undo.put(self._sessions, change.id, _Session(change))
            case DropSession(id_):
                undo.drop(self._sessions, [id_])
            case AddEvent():
                self._add_event(change, undo)
            case SetText(id_, number, text):
                session = self._sessions.get(id_)
                if session is not None and (row := session.events.get(number)) is not None:
                    undo.put(session.events, number, evolve(row, text=text))
            case AddTurn(id_, session_id, key, digest, seq, principal):
                _new(self._works, id_, "turn")
                now = time.time()
                work = Work("turn", id_, session_id, key, digest, seq, TurnState.QUEUED, now, principal)
                undo.put(self._works, id_, work)
            case MoveTurn(id_, sources, state):
                turn = self._works.get(id_)
                if turn is None or turn.kind != "turn" or turn.state not in sources:
                    raise StoreUnavailable(f"turn {id_} is not {sorted(s.value for s in sources)}")
                undo.put(self._works, id_, evolve(turn, state=state))
            case AddExec():
                _new(self._works, change.id, "exec")
                undo.put(self.execs, change.id, (change, None))
                undo.put(self._works, change.id, _exec(change))
            case EndExec(id_):
                begun, ended = self.execs.get(id_, (None, change))
                if begun is None or ended is not None:
                    raise StoreUnavailable(f"exec {id_} does not run")
                undo.put(self.execs, id_, (begun, change))
                if (work_ := self._works.get(id_)) is not None:
                    undo.put(self._works, id_, evolve(work_, state=TurnState.COMPLETED))
            case Retract(id_, start):
                self._retract(id_, start, undo)
            case Late(late):
                self._apply_late(late, undo)

    def _add_event(self, change: AddEvent, undo: Undo) -> None:
        session = self._sessions.get(change.session)
        if session is None or change.number != session.last + 1:
            raise StoreUnavailable(f"session {change.session} is not at {change.number - 1}")
        _set_last(session, change.number, undo)
        row = EventRow(change.number, change.owner, change.body, change.admin)
        if self._keep_events:
            undo.put(session.events, change.number, row)
        work = self._works.get(change.owner)
        if isinstance(change.body, ev.Change) and change.body.ends and work is not None:
            undo.put(self._works, work.id, evolve(work, outcome=change.body, outcome_at=change.number))

    def _retract(self, session_id: str, start: int, undo: Undo) -> None:
        session = self._sessions.get(session_id)
        if session is None:
            return
        _set_last(session, min(session.last, start - 1), undo)
        undo.drop(session.events, [number for number in session.events if number >= start])
        works = [work for work in self._works.values() if work.session == session_id]
        for work in works:
            if work.outcome_at >= start:
                undo.put(self._works, work.id, evolve(work, outcome=None, outcome_at=0))
        gone = [work.id for work in works if work.seq >= start]
        undo.drop(self._works, gone)
        undo.drop(self.execs, gone)

    def _apply_late(self, change: MoveTurn | EndExec, undo: Undo) -> None:
        try:
            self._apply(change, undo)
        except StoreUnavailable:
            return

    def _trim(self, changes: Sequence[Change]) -> None:
        """Forget the oldest rows of those that nothing needs any more."""
        for change in changes:
            if isinstance(change, AddEvent) and (session := self._sessions.get(change.session)) is not None:
                while len(session.events) > self._keep_events:
                    session.events.popitem(last=False)
            elif isinstance(change, MoveTurn | EndExec) and not self._keep_events and self._has_ended(change.id):
                self._works.pop(change.id, None)  # nobody asks for its key or its outcome
        while len(self._sessions) > self._keep:
            self._sessions.popitem(last=False)
        for rows in (self._works, self.execs):
            spare = len(rows) - self._keep
            ended = (id_ for id_ in rows if self._has_ended(id_))
            for id_ in list(itertools.islice(ended, max(spare, 0))):
                del rows[id_]

    def _has_ended(self, id_: str) -> bool:
        row = self.execs.get(id_)
        work = self._works.get(id_)
        return (row is None or row[1] is not None) and (work is None or work.state in OUTCOMES)

    # --- reading back ---

    async def session(self, session_id: str) -> SessionRow | None:
        found = self._sessions.get(session_id)
        return None if found is None else _row(found)

    async def named(self, owner: str, name: str) -> SessionRow | None:
        found = self._named(owner, name)
        return None if found is None else _row(found)

    def _named(self, owner: str, name: str) -> _Session | None:
        return next((s for s in self._sessions.values() if (s.row.owner, s.row.name) == (owner, name)), None)

    async def sessions(self, owner: str | None, *, skip: int, limit: int) -> Sequence[SessionRow]:
        found = [_row(s) for s in reversed(self._sessions.values()) if owner in (None, s.row.owner)]
        return found[skip : skip + limit]

    async def owners(self) -> Mapping[str, int]:
        return Counter(session.row.owner for session in self._sessions.values())

    async def events(self, session_id: str, start: int, *, keep_bytes: int) -> Sequence[EventRow]:
        rows = (row for row in self._events(session_id) if row.number >= start)
        return _as_many(rows, keep_bytes)

    async def tail(self, session_id: str, *, before: int | None = None, keep_bytes: int) -> Sequence[EventRow]:
        rows = (row for row in reversed(self._events(session_id)) if before is None or row.number < before)
        return _as_many(rows, keep_bytes)[::-1]

    async def conversation(self, session_id: str, *, before: int, keep_bytes: int) -> Sequence[EventRow]:
        rows = (r for r in reversed(self._events(session_id)) if r.number < before and in_conversation(r.body))
        return _as_many(rows, keep_bytes)[::-1]

    async def growing(self, session_id: str, after: int) -> Sequence[int]:
        rows = self._events(session_id)
        ended = {r.owner for r in rows if r.number <= after and isinstance(r.body, ev.Change) and r.body.ends}
        messages = (r for r in rows if r.number <= after and isinstance(r.body, ev.Message))
        return [row.number for row in messages if row.owner not in ended]

    async def keyed(self, session_id: str, limit: int, *, since: float = math.inf) -> Sequence[Work]:
        found = [w for w in self._works.values() if w.session == session_id and w.key is not None]
        rest = itertools.takewhile(lambda work: work.at >= since, reversed(found[:-limit]))
        return [*list(rest)[::-1], *found[-limit:]]

    async def unfinished(self) -> Sequence[Work]:
        return [work for work in self._works.values() if work.state not in OUTCOMES]

    def _events(self, session_id: str) -> Sequence[EventRow]:
        found = self._sessions.get(session_id)
        return () if found is None else tuple(found.events.values())


def _row(session: _Session) -> SessionRow:
    row = session.row
    return SessionRow(row.id, row.owner, row.name, row.epoch, session.last)


def _exec(row: AddExec) -> Work:
    return Work(
        "exec", row.id, row.session, row.key, row.digest, row.seq, TurnState.RUNNING, row.at, row.principal,
        row.command,
    )  # fmt: skip


def _as_many(rows: Any, keep_bytes: int) -> list[EventRow]:
    found: list[EventRow] = []
    size = 0
    for row in rows:
        size += _EVENT_BYTES + len(row.text) + len(repr(row.body))
        if found and size > keep_bytes:
            break
        found.append(row)
    return found


def _new(rows: Mapping[str, object], id_: str, kind: str) -> None:
    if id_ in rows:
        raise StoreUnavailable(f"{kind} {id_} is there")


def _set_last(session: _Session, last: int, undo: Undo) -> None:
    before = session.last

    def back() -> None:
        session.last = before

    session.last = last
    undo.by(back)
