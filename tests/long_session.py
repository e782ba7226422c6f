"""A session of many events in a store, as a gateway would have written it. `bench/replay.py` uses it too."""

from __future__ import annotations

from pathlib import Path

from gateway_trio.core.events import Change, Kind, Message, Prompt
from gateway_trio.core.session import TurnState
from gateway_trio.sqlite_store import SqliteStore
from gateway_trio.store import AddEvent, AddSession, AddTurn, MoveTurn, SetText

ID = "s-long"

#: Events of a turn: prompt, queued, running, message, completed.
EACH = 5


async def fill(path: Path, events: int, *, text: str = "answer ") -> None:
    """Write the session, of `local`, to a new store; `events` is a multiple of 5.

    Its answers are `text` and a number.
    """
    store = SqliteStore(path)
    await store.open()
    await store.commit([AddSession(ID, "local", None, "epoch")])
    for start in range(0, events // EACH, 500):
        changes = []
        for number in range(start, min(start + 500, events // EACH)):
            turn, seq = f"t{number}", number * EACH + 1
            bodies = [
                Prompt(f"question {number}", "turn"),
                Change("turn", turn, "queued", seq, ends=False, position=0),
                Change("turn", turn, "running", seq, ends=False),
                Message(Kind.ANSWER),
                Change("turn", turn, "completed", seq, ends=True, stop_reason="end_turn"),
            ]
            changes += [AddTurn(turn, ID, None, "", seq, "local")]
            changes += [AddEvent(ID, seq + i, turn, body) for i, body in enumerate(bodies)]
            changes += [SetText(ID, seq + 3, f"{text}{number}")]
            changes += [MoveTurn(turn, frozenset({TurnState.QUEUED}), TurnState.COMPLETED)]
        await store.commit(changes)
    await store.aclose()
