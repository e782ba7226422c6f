"""The SQL of a transaction: each kind of change, and the conditions under which it does not happen."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from gateway_trio.core import events as ev
from gateway_trio.core.rows import dump_body, dump_text
from gateway_trio.core.session import TurnState
from gateway_trio.store import (
    AddEvent,
    AddExec,
    AddSession,
    AddTurn,
    Change,
    DropSession,
    EndExec,
    Late,
    MoveTurn,
    Retract,
    SetText,
    StoreUnavailable,
)

__all__ = ["Changes"]

#: A session is looked at, whether it has become too long, as often as its numbers pass a multiple of this.
_LOOK_EVERY = 256


class Changes:
    """Carries out changes on a connection, within a transaction of its caller's.

    `grown` is told the `ref` of sessions that have become longer. Every call raises `StoreUnavailable` where a
    condition does not hold, and sqlite3's errors.
    """

    def __init__(self, db: sqlite3.Connection, grown: Callable[[int], object]) -> None:
        self._db = db
        self._grown = grown

    def apply(self, change: Change, now: float) -> None:
        """Carry out one change; `now` is when (Unix seconds)."""
        _APPLY[type(change)](self, change, now)

    def _add_session(self, change: AddSession, now: float) -> None:
        try:
            self._db.execute(
                "INSERT INTO sessions (id, owner, name, epoch, at) VALUES (?, ?, ?, ?, ?)",
                (change.id, change.owner, change.name, change.epoch, now),
            )
        except sqlite3.IntegrityError:
            raise StoreUnavailable(f"session {change.id} of {change.owner}, {change.name!r}, is there") from None

    def _drop_session(self, change: DropSession, _now: float) -> None:
        self._db.execute("INSERT INTO dropped SELECT ref FROM sessions WHERE id = ?", (change.id,))
        self._db.execute("DELETE FROM sessions WHERE id = ?", (change.id,))

    def _session(self, id_: str) -> tuple[int, int]:
        """Return the session's ref and its last number; (-1, -1) if there is none."""
        found = self._db.execute("SELECT ref, last FROM sessions WHERE id = ?", (id_,)).fetchone()
        return found or (-1, -1)

    def _add_event(self, change: AddEvent, now: float) -> None:
        ref, last = self._session(change.session)
        if ref < 0 or change.number != last + 1:
            raise StoreUnavailable(f"session {change.session} is not at {change.number - 1}")
        kind, body = dump_body(change.body)
        ends = isinstance(change.body, ev.Change) and change.body.ends
        self._db.execute(
            "INSERT INTO events (session, number, owner, kind, ends, admin, at, body) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (ref, change.number, change.owner, kind, ends, change.admin, now, body),
        )
        self._db.execute("UPDATE sessions SET last = ?, at = ? WHERE ref = ?", (change.number, now, ref))
        if kind == "message":
            self._db.execute("INSERT OR IGNORE INTO unended VALUES (?, ?)", (ref, change.owner))
        if ends:
            self._db.execute("DELETE FROM unended WHERE session = ? AND owner = ?", (ref, change.owner))
            self._db.execute(
                "UPDATE works SET outcome = ?, outcome_at = ? WHERE id = ?", (body, change.number, change.owner)
            )
        if change.number % _LOOK_EVERY == 0:
            self._grown(ref)

    def _set_text(self, change: SetText, _now: float) -> None:
        self._db.execute(
            "UPDATE events SET text = ? WHERE number = ? AND session = (SELECT ref FROM sessions WHERE id = ?)",
            (dump_text(change.text), change.number, change.session),
        )

    def _add_turn(self, change: AddTurn, now: float) -> None:
        self._add_work(change, "turn", TurnState.QUEUED, now)

    def _add_exec(self, change: AddExec, _now: float) -> None:
        self._add_work(change, "exec", TurnState.RUNNING, change.at)
        self._db.execute("INSERT INTO execs (id, words) VALUES (?, ?)", (change.id, json.dumps(change.words)))

    def _add_work(self, change: AddTurn | AddExec, kind: str, state: TurnState, at: float) -> None:
        command = change.command if isinstance(change, AddExec) else ""
        row = (
            change.id, kind, change.session, change.key, change.digest, change.seq, state.value, at,
            change.principal, command,
        )  # fmt: skip
        try:
            self._db.execute(
                "INSERT INTO works (id, kind, session, key, digest, seq, state, at, principal, command) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
        except sqlite3.IntegrityError:
            raise StoreUnavailable(f"{kind} {change.id} is there") from None

    def _move_turn(self, change: MoveTurn, _now: float) -> None:
        sources = sorted(state.value for state in change.sources)
        places = ", ".join("?" * len(sources))
        moved = self._db.execute(
            f"UPDATE works SET state = ? WHERE id = ? AND kind = 'turn' AND state IN ({places})",  # noqa: S608
            (change.state.value, change.id, *sources),
        )
        if not moved.rowcount:
            raise StoreUnavailable(f"turn {change.id} is not {sources}")

    def _end_exec(self, change: EndExec, _now: float) -> None:
        facts = json.dumps(dict(change.facts))
        ended = self._db.execute(
            "UPDATE execs SET facts = ?, ended_at = ? WHERE id = ? AND facts IS NULL",
            (facts, change.at, change.id),
        )
        if not ended.rowcount:
            raise StoreUnavailable(f"exec {change.id} does not run")
        self._db.execute("UPDATE works SET state = ? WHERE id = ?", (TurnState.COMPLETED.value, change.id))

    def _retract(self, change: Retract, _now: float) -> None:
        ref, last = self._session(change.session)
        if ref < 0:
            return
        since = (ref, change.start)
        self._db.execute("UPDATE sessions SET last = ? WHERE ref = ?", (min(last, change.start - 1), ref))
        ends = "SELECT owner FROM events WHERE session = ? AND number >= ? AND ends = 1"
        # Whoever has no message left is none that grows; the row is then one too many, which nobody reads.
        self._db.execute(f"INSERT OR IGNORE INTO unended SELECT ?, owner FROM ({ends})", (ref, *since))  # noqa: S608
        self._db.execute(
            "UPDATE works SET outcome = NULL, outcome_at = 0 "  # noqa: S608
            f"WHERE session = ? AND outcome_at >= ? AND id IN ({ends})",
            (change.session, change.start, *since),
        )
        self._db.execute("DELETE FROM events WHERE session = ? AND number >= ?", since)
        gone = "FROM works WHERE session = ? AND seq >= ?"
        of = (change.session, change.start)
        self._db.execute(f"DELETE FROM execs WHERE id IN (SELECT id {gone} AND kind = 'exec')", of)  # noqa: S608
        self._db.execute(f"DELETE {gone}", of)

    def _late(self, change: Late, now: float) -> None:
        try:
            self.apply(change.change, now)
        except StoreUnavailable:
            return


_APPLY: Mapping[type, Callable[[Changes, Any, float], None]] = MappingProxyType(
    {
        AddSession: Changes._add_session,  # noqa: SLF001 - the table of this class
        DropSession: Changes._drop_session,  # noqa: SLF001
        AddEvent: Changes._add_event,  # noqa: SLF001
        SetText: Changes._set_text,  # noqa: SLF001
        AddTurn: Changes._add_turn,  # noqa: SLF001
        MoveTurn: Changes._move_turn,  # noqa: SLF001
        AddExec: Changes._add_exec,  # noqa: SLF001
        EndExec: Changes._end_exec,  # noqa: SLF001
        Retract: Changes._retract,  # noqa: SLF001
        Late: Changes._late,  # noqa: SLF001
    }
)
