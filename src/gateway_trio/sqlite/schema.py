"""The tables, and how those of an earlier version become them.

`MIGRATIONS` has a function for each version; `user_version` in the file says how many of them it has had. A new
version is a new function at the end; those before it stay as they are.

sessions   a conversation. `ref` stands for it in `events`, and is never given twice, so that a session's events
           can go long after it. `last` is its highest number, whatever became of the events; `at` when it was
           last used
events     what happened in it. `ends`: nothing of this owner comes after it
unended    the owners of messages that have had no such event
works      turns and execs, in the order in which they came, with the event that ended them. They outlive
           their session and their events
execs      the audit: what an exec ran, and how it went
dropped    sessions that are gone and may have events left, to be deleted bit by bit

Times are Unix seconds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway_trio.store import StoreUnavailable

__all__ = ["CONVERSATION", "MIGRATIONS", "migrate", "version_of"]

#: What `core.history.in_conversation` says of an event's body. The index of version 2 is of the rows for which it
#: holds, and found by these very words: other ones are another version's.
CONVERSATION = """CASE kind
    WHEN 'message' THEN body = 'answer'
    WHEN 'prompt' THEN json_extract(body, '$.lane') = 'turn'
    WHEN 'change' THEN json_extract(body, '$.work') = 'turn'
    WHEN 'update' THEN body = '"new conversation"'
    END"""

_VERSION_1 = (
    """CREATE TABLE sessions (
        ref INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        name TEXT,
        epoch TEXT NOT NULL,
        last INTEGER NOT NULL DEFAULT 0,
        at REAL NOT NULL)""",
    "CREATE INDEX sessions_owner ON sessions (owner)",
    "CREATE UNIQUE INDEX sessions_name ON sessions (owner, name) WHERE name IS NOT NULL",
    """CREATE TABLE events (
        session INTEGER NOT NULL,
        number INTEGER NOT NULL,
        owner TEXT NOT NULL,
        kind TEXT NOT NULL,
        ends INTEGER NOT NULL,
        admin INTEGER NOT NULL,
        at REAL NOT NULL,
        body TEXT NOT NULL,
        text NOT NULL DEFAULT '',
        PRIMARY KEY (session, number))""",
    "CREATE INDEX events_messages ON events (session, owner, number) WHERE kind = 'message'",
    "CREATE INDEX events_ends ON events (session, number, owner) WHERE ends = 1",
    """CREATE TABLE unended (
        session INTEGER NOT NULL,
        owner TEXT NOT NULL,
        PRIMARY KEY (session, owner)) WITHOUT ROWID""",
    """CREATE TABLE works (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        session TEXT,
        key TEXT,
        digest TEXT NOT NULL,
        seq INTEGER NOT NULL,
        state TEXT NOT NULL,
        at REAL NOT NULL,
        principal TEXT NOT NULL,
        command TEXT NOT NULL DEFAULT '',
        outcome TEXT,
        outcome_at INTEGER NOT NULL DEFAULT 0)""",
    "CREATE INDEX works_seq ON works (session, seq)",
    "CREATE INDEX works_key ON works (session) WHERE key IS NOT NULL",
    "CREATE INDEX works_unended ON works (state, session, seq) WHERE state IN ('queued', 'running')",
    "CREATE INDEX works_ended ON works (at) WHERE state NOT IN ('queued', 'running')",
    """CREATE TABLE execs (
        id TEXT NOT NULL PRIMARY KEY,
        words TEXT NOT NULL,
        facts TEXT,
        ended_at REAL)""",
    "CREATE TABLE dropped (ref INTEGER PRIMARY KEY)",
)


def _first(db: sqlite3.Connection) -> None:
    for statement in _VERSION_1:
        db.execute(statement)


def _second(db: sqlite3.Connection) -> None:
    db.execute(f"CREATE INDEX events_conversation ON events (session, number) WHERE {CONVERSATION}")


MIGRATIONS: Sequence[Callable[[sqlite3.Connection], None]] = (_first, _second)


def version_of(db: sqlite3.Connection, path: Path, newest: int = len(MIGRATIONS)) -> int:
    """Return how many migrations a database has had, 0 for one with nothing in it. It changes nothing.

    `path` is what to call it. Raises `StoreUnavailable` for one that a newer program made, or another program,
    and sqlite3's errors for what is no database.
    """
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version > newest:
        raise StoreUnavailable(
            f"the store {path} has version {version} of a newer gateway-trio, this one reads up to {newest}; "
            "it was left as it is"
        )
    if tables and not version:
        raise StoreUnavailable(f"the store {path} is another program's database, and was left as it is")
    return int(version)


def migrate(
    db: sqlite3.Connection, path: Path, migrations: Sequence[Callable[[sqlite3.Connection], None]] = MIGRATIONS
) -> None:
    """Bring a database to the newest version, all in one transaction or not at all.

    Where it has that version already nothing is written. Raises what `version_of` raises.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        if steps := migrations[version_of(db, path, len(migrations)) :]:
            for step in steps:
                step(db)
            db.execute(f"PRAGMA user_version = {len(migrations)}")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
