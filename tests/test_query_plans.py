"""Every statement of the store on disk finds its rows by an index, as long as a table or a session may be."""

import contextlib
import sqlite3
from pathlib import Path

import pytest

from gateway_trio.core.events import Change, Kind, Message, Prompt
from gateway_trio.core.session import TurnState
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

READS = {
    "session": lambda db: reads.session(db, "s"),
    "named": lambda db: reads.named(db, "ann", "main"),
    "sessions": lambda db: reads.sessions(db, "ann", 3, 10),
    "all sessions": lambda db: reads.sessions(db, None, 3, 10),
    "owners": reads.owners,
    "events": lambda db: reads.events(db, "s", 3, ALL),
    "tail": lambda db: reads.tail(db, "s", None, 10_000),
    "tail before": lambda db: reads.tail(db, "s", 4, 10_000),
    "conversation": lambda db: reads.conversation(db, "s", 4, 10_000),
    "growing": lambda db: reads.growing(db, "s", 3),
    "keyed": lambda db: reads.keyed(db, "s", 10, 0.0),
    "unfinished": reads.unfinished,
}
CHANGES = (
    AddSession("new", "ann", "other"),
    AddEvent("s", 7, "t", Message(Kind.ANSWER)),
    AddEvent("s", 8, "t", Change("turn", "t", "completed", 1, ends=True)),
    SetText("s", 7, "text"),
    AddTurn("new", "s", "key", "d", 1),
    MoveTurn("t", frozenset({S.QUEUED, S.RUNNING}), S.COMPLETED),
    AddExec("new exec", "s", "ann", "x", (), 1.0),
    EndExec("e", {}, 1.0),
    Late(EndExec("e", {}, 1.0)),
    Retract("s", 5),
    DropSession("s"),
)

#: What reads a whole index or table, and why it may.
ALLOWED = {
    "all sessions": "SCAN sessions",  # newest first, and it stops at the page's end
    "owners": "SCAN sessions USING COVERING INDEX sessions_owner",  # once at the start; names alone
    "expired": "SCAN s",  # once at the start
    "step": "SCAN dropped",  # the first row
}


@pytest.fixture
def db():
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db, Path("x"))
        changes = Changes(db, lambda _: None)
        changes.apply(AddSession("s", "ann", "main"), 1.0)
        for number in range(1, 7):
            changes.apply(AddEvent("s", number, "t", Prompt("hi", "turn")), 1.0)
        changes.apply(AddTurn("t", "s", "key", "d", 1), 1.0)
        changes.apply(AddExec("e", "s", "ann", "x", (), 1.0), 1.0)
        yield db


def plans(db, run):
    """Return each statement that runs, with the steps of its plan."""
    statements = []
    db.set_trace_callback(statements.append)
    try:
        run(db)
    finally:
        db.set_trace_callback(None)
    assert statements
    return {
        statement: [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]
        for statement in statements
        if statement.split()[0] in {"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"}
    }


def scans(plan):
    """Return what reads a table or an index from end to end; what a statement made for itself is small."""
    own = ("SCAN owners", "SCAN this", "SCAN CONSTANT ROW", "SCAN (subquery")
    return [step for step in plan if step.startswith("SCAN") and not step.startswith(own)]


def check(name, found):
    for statement, plan in found.items():
        assert [step for step in scans(plan) if step != ALLOWED.get(name)] == [], statement


@pytest.mark.parametrize("name", READS)
def test_a_read_finds_its_rows_by_an_index(db, name):
    found = plans(db, READS[name])
    check(name, found)
    if name not in {"growing", "unfinished"}:  # which have few rows, whatever the table has
        assert not [plan for plan in found.values() if "USE TEMP B-TREE FOR ORDER BY" in plan]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: type(change).__name__)
def test_a_change_finds_its_rows_by_an_index(db, change):
    with contextlib.suppress(StoreUnavailable):
        check("", plans(db, lambda db: Changes(db, lambda _: None).apply(change, 2.0)))


def test_forgetting_finds_its_rows_by_an_index(db):
    retention = Retention(db, keep_days=1, keep_events=2, clock=lambda: 1e6)
    Changes(db, retention.grown).apply(DropSession("s"), 1.0)
    check("expired", plans(db, lambda _: retention.drop(retention.expired())))
    retention.grown(1)
    while retention.due:
        check("step", plans(db, lambda _: retention.step()))


@pytest.mark.parametrize("scan", ["SELECT * FROM events WHERE admin = 1", "SELECT count(*) FROM works"])
def test_the_test_knows_a_scan(db, scan):
    with pytest.raises(AssertionError):
        check("", plans(db, lambda db: db.execute(scan).fetchall()))
