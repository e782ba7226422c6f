"""Any sequence of commits gives the same answers from the store in memory and the one on disk."""

import contextlib
import sqlite3
from pathlib import Path

import pytest
import trio
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_trio.core.events import Change, Kind, Message, Prompt, Update
from gateway_trio.core.history import NEW_CONVERSATION
from gateway_trio.core.session import TurnState
from gateway_trio.memory_store import MemoryStore
from gateway_trio.sqlite import reads
from gateway_trio.sqlite.changes import Changes
from gateway_trio.sqlite.retention import Retention
from gateway_trio.sqlite.schema import migrate
from gateway_trio.store import (
    AddEvent,
    AddExec,
    AddSession,
    AddTurn,
    DropSession,
    EndExec,
    Late,
    MoveTurn,
    Retract,
    SetText,
    StoreUnavailable,
)

S = TurnState
ALL = 1 << 40
SESSIONS, TURNS, EXECS = ("s1", "s2", "s3"), ("t1", "t2", "t3"), ("e1", "e2")
OWNERS, NAMES = ("ann", "bob"), (None, "main", "other")
PAST = 100  # a number that says which one is next, by its distance

sessions, turns, execs = map(st.sampled_from, (SESSIONS, TURNS, EXECS))
works, owners, names = map(st.sampled_from, (TURNS + EXECS, OWNERS, NAMES))
numbers = st.integers(1, 12)
nexts = st.sampled_from([PAST] * 8 + [PAST - 1, PAST + 1])
states = st.sampled_from([S.QUEUED, S.RUNNING, S.COMPLETED, S.CANCELLED])
keys = st.none() | st.sampled_from(["k1", "k2"])


def body(owner, kind, ends):
    match kind:
        case "prompt":
            return Prompt("hi", "turn" if owner in TURNS else "exec")
        case "update":
            return Update({"a": [1]})
        case "new":
            return Update(NEW_CONVERSATION)
        case "change":
            return Change("turn" if owner in TURNS else "exec", owner, "running", 1, ends=ends)
        case _:
            return Message(Kind(kind))


bodies = st.sampled_from(["prompt", "update", "new", "change", "change", "answer", "answer", "output"])
events = st.builds(
    lambda session, number, owner, kind, ends, admin: AddEvent(session, number, owner, body(owner, kind, ends), admin),
    sessions, nexts, works, bodies, st.booleans(), st.booleans(),
)  # fmt: skip
moves = st.builds(MoveTurn, turns, st.frozensets(states, min_size=1), states)
ends = st.builds(EndExec, execs, st.just({"status": "exited"}), st.just(2.0))
CHANGES = st.one_of(
    st.builds(AddSession, sessions, owners, names, st.sampled_from(["e1", "e2"])),
    events, events, events, events,
    st.builds(SetText, sessions, numbers, st.sampled_from(["", "a", "ab\0é"])),
    st.builds(AddTurn, turns, sessions, keys, st.just("d"), numbers, owners),
    st.builds(AddExec, execs, st.none() | sessions, owners, st.just("x"), st.just(("a",)), st.just(1.0), keys, st.just("d"), numbers),
    moves, moves, ends,
    st.builds(Late, moves | ends),
    st.builds(Retract, sessions, numbers),
    st.builds(DropSession, sessions),
)  # fmt: skip
COMMITS = st.lists(st.lists(CHANGES, min_size=1, max_size=4), max_size=25)


class OnDisk:
    """The SQL of the store on disk, with no thread."""

    def __init__(self, db):
        migrate(db, Path("x"))
        self.db = db
        self.retention = Retention(db, keep_days=10, keep_events=1000, clock=lambda: 3.0)
        self.changes = Changes(db, self.retention.grown)

    def commit(self, changes):
        self.db.execute("BEGIN")
        try:
            for change in changes:
                self.changes.apply(change, 3.0)
        except StoreUnavailable:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    async def read(self):
        db = self.db
        yield [reads.session(db, s) for s in SESSIONS]
        yield [reads.named(db, o, n) for o in OWNERS for n in NAMES if n]
        yield [reads.sessions(db, o, skip, 2) for o in (None, *OWNERS) for skip in (0, 1)]
        yield reads.owners(db)
        yield [reads.events(db, s, start, ALL) for s in SESSIONS for start in (0, 1, 5)]
        yield [reads.tail(db, s, before, ALL) for s in SESSIONS for before in (None, 3)]
        yield [reads.conversation(db, s, before, ALL) for s in SESSIONS for before in (3, 99)]
        yield [list(reads.growing(db, s, after)) for s in SESSIONS for after in range(13)]
        yield [
            bare(reads.keyed(db, s, limit, since)) for s in SESSIONS for limit in (1, 9) for since in (0.0, 1e12)
        ]
        yield bare(reads.unfinished(db))


async def read_memory(store):
    yield [await store.session(s) for s in SESSIONS]
    yield [await store.named(o, n) for o in OWNERS for n in NAMES if n]
    yield [await store.sessions(o, skip=skip, limit=2) for o in (None, *OWNERS) for skip in (0, 1)]
    yield await store.owners()
    yield [await store.events(s, start, keep_bytes=ALL) for s in SESSIONS for start in (0, 1, 5)]
    yield [await store.tail(s, before=before, keep_bytes=ALL) for s in SESSIONS for before in (None, 3)]
    yield [await store.conversation(s, before=before, keep_bytes=ALL) for s in SESSIONS for before in (3, 99)]
    yield [list(await store.growing(s, after)) for s in SESSIONS for after in range(13)]
    yield [
        bare(await store.keyed(s, limit, since=since))
        for s in SESSIONS
        for limit in (1, 9)
        for since in (0.0, 1e12)
    ]
    yield bare(await store.unfinished())


def bare(found):
    """Without the time, which MemoryStore looks up by itself."""
    return [evolve(work, at=0.0) for work in found]


def possible(commit, lasts, ended):
    """Number the events; drop those that a gateway never adds: a second end, or something of an owner after it.

    `lasts` and `ended` are what stands so far; they are changed by what this commit would add.
    """
    for change in commit:
        if not isinstance(change, AddEvent):
            yield change
            continue
        if (change.session, change.owner) in ended:
            continue
        number = lasts.get(change.session, 0) + change.number - PAST + 1
        if change.number == PAST:
            lasts[change.session] = number
        if isinstance(change.body, Change) and change.body.ends:
            ended.add((change.session, change.owner))
        yield evolve(change, number=number)


@given(COMMITS)
@settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
def test_both_stores_say_the_same(commits):
    async def main():
        memory = MemoryStore(keep_events=1000)
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            disk = OnDisk(db)
            for commit in commits:
                rows = await memory.sessions(None, skip=0, limit=9)
                lasts = {row.id: row.last for row in rows}
                ended = {
                    (row.id, event.owner)
                    for row in rows
                    for event in await memory.events(row.id, 1, keep_bytes=ALL)
                    if isinstance(event.body, Change) and event.body.ends
                }
                changes = list(possible(commit, lasts, ended))
                refused = []
                try:
                    await memory.commit(changes)
                except StoreUnavailable as error:
                    refused.append(error)
                if refused:
                    with pytest.raises(StoreUnavailable):
                        disk.commit(changes)
                else:
                    disk.commit(changes)
                wanted = [answer async for answer in read_memory(memory)]
                assert [answer async for answer in disk.read()] == wanted, changes

    trio.run(main)
