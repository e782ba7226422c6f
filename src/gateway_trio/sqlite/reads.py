"""The SQL of what is read back: a function for each read of the protocol, which it describes."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from gateway_trio.core.events import Change
from gateway_trio.core.rows import load_body, load_text
from gateway_trio.core.session import TurnState
from gateway_trio.sqlite.schema import CONVERSATION
from gateway_trio.store import EventRow, SessionRow, Work

__all__ = [
    "conversation", "events", "growing", "keyed", "named", "owners", "session", "sessions", "tail", "unfinished",
]  # fmt: skip

_SESSION = "SELECT id, owner, name, epoch, last FROM sessions"
_COLUMNS = "SELECT number, owner, kind, body, admin, text FROM events"
_OF_SESSION = "WHERE session = (SELECT ref FROM sessions WHERE id = ?)"
_EVENT = f"{_COLUMNS} {_OF_SESSION}"
_WORK = "SELECT kind, id, session, key, digest, seq, state, at, principal, command, outcome, outcome_at FROM works"

#: A number that no event has.
_END = 1 << 62

#: What an event is taken to cost beside its body and its text.
_EVENT_BYTES = 300


def session(db: sqlite3.Connection, id_: str) -> SessionRow | None:
    found = db.execute(f"{_SESSION} WHERE id = ?", (id_,)).fetchone()
    return None if found is None else SessionRow(*found)


def named(db: sqlite3.Connection, owner: str, name: str) -> SessionRow | None:
    found = db.execute(f"{_SESSION} WHERE owner = ? AND name = ?", (owner, name)).fetchone()
    return None if found is None else SessionRow(*found)


def sessions(db: sqlite3.Connection, owner: str | None, skip: int, limit: int) -> Sequence[SessionRow]:
    where, of = ("", ()) if owner is None else ("WHERE owner = ?", (owner,))
    rows = db.execute(f"{_SESSION} {where} ORDER BY ref DESC LIMIT ? OFFSET ?", (*of, limit, skip))
    return [SessionRow(*row) for row in rows]


def owners(db: sqlite3.Connection) -> Mapping[str, int]:
    return dict(db.execute("SELECT owner, count(*) FROM sessions GROUP BY owner").fetchall())


def events(db: sqlite3.Connection, session_id: str, start: int, keep_bytes: int) -> Sequence[EventRow]:
    rows = db.execute(f"{_EVENT} AND number >= ? ORDER BY number", (session_id, start))
    return _as_many(rows, keep_bytes)


def tail(db: sqlite3.Connection, session_id: str, before: int | None, keep_bytes: int) -> Sequence[EventRow]:
    rows = db.execute(
        f"{_EVENT} AND number < ? ORDER BY number DESC", (session_id, _END if before is None else before)
    )
    return _as_many(rows, keep_bytes)[::-1]


def conversation(db: sqlite3.Connection, session_id: str, before: int, keep_bytes: int) -> Sequence[EventRow]:
    rows = db.execute(
        f"{_COLUMNS} INDEXED BY events_conversation {_OF_SESSION} AND number < ? AND {CONVERSATION} "
        "ORDER BY number DESC",
        (session_id, before),
    )
    return _as_many(rows, keep_bytes)[::-1]


def growing(db: sqlite3.Connection, session_id: str, after: int) -> Sequence[int]:
    """Read the messages of owners that have not ended at all, and of those that ended after `after`.

    The latter are not more than what whoever asks is about to be sent.
    """
    rows = db.execute(
        """
        WITH this (ref) AS (SELECT ref FROM sessions WHERE id = ?1),
        owners (owner) AS (
            SELECT owner FROM unended WHERE session = (SELECT ref FROM this)
            UNION
            SELECT owner FROM events WHERE session = (SELECT ref FROM this) AND ends = 1 AND number > ?2)
        SELECT e.number FROM owners CROSS JOIN events AS e INDEXED BY events_messages
        WHERE e.session = (SELECT ref FROM this) AND e.kind = 'message' AND e.owner = owners.owner
        AND e.number <= ?2 ORDER BY e.number
        """,
        (session_id, after),
    )
    return [number for (number,) in rows]


def keyed(db: sqlite3.Connection, session_id: str, limit: int, since: float) -> Sequence[Work]:
    found: list[Work] = []
    rows = db.execute(f"{_WORK} WHERE session = ? AND key IS NOT NULL ORDER BY n DESC", (session_id,))
    with contextlib.closing(rows):
        for row in rows:
            work = _work(row)
            if len(found) >= limit and work.at < since:
                break
            found.append(work)
    return found[::-1]


def unfinished(db: sqlite3.Connection) -> Sequence[Work]:
    rows = db.execute(f"{_WORK} INDEXED BY works_unended WHERE state IN ('queued', 'running') ORDER BY n")
    return [_work(row) for row in rows]


def _as_many(rows: sqlite3.Cursor, keep_bytes: int) -> list[EventRow]:
    found: list[EventRow] = []
    size = 0
    with contextlib.closing(rows):  # one that is left half read keeps the log from being put into the database
        for row in rows:
            size += _EVENT_BYTES + len(row[3]) + len(row[5])
            if found and size > keep_bytes:
                break
            found.append(_event(row))
    return found


def _event(row: Any) -> EventRow:
    number, owner, kind, body, admin, text = row
    return EventRow(number, owner, load_body(kind, body), bool(admin), load_text(text))


def _work(row: Any) -> Work:
    kind, id_, session_id, key, digest, seq, state, at, principal, command, outcome, outcome_at = row
    ended = None if outcome is None else Change(**json.loads(outcome))
    return Work(
        kind, id_, session_id, key, digest, seq, TurnState(state), at, principal, command, ended, outcome_at
    )
