"""What the rules are made with."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Sequence

from gateway_trio.core.events import Body, Prompt
from gateway_trio.core.events import Change as Outcome
from gateway_trio.core.session import TurnState
from gateway_trio.store import (
    AddEvent,
    AddExec,
    AddSession,
    AddTurn,
    Change,
    EndExec,
    MoveTurn,
    Store,
    StoreUnavailable,
    Work,
)

__all__ = [
    "ALL", "ENDED", "EXEC", "NOW", "Rule", "S", "added", "ended", "moved", "numbers", "prompted", "refuses",
    "same", "unfinished",
]  # fmt: skip

S = TurnState
ALL = 1 << 40  #: bytes: everything
NOW = time.time()
EXEC = AddExec("", "works", "someone", "uptime", ("a", "b"), NOW, "exec's key", "digest", 2)
ENDED = EndExec("", {"status": "exited", "exitCode": 0}, NOW + 1)

#: What a store does, tried on one that is open. It uses sessions, owners and ids that begin with a word of its
#: own, so that all of them can stand in one store.
Rule = Callable[[Store], Awaitable[None]]


def same(got: object, wanted: object, what: str) -> None:
    """Raise AssertionError unless both are equal."""
    if got != wanted:
        # Both from shortly before the place where they part, and not for pages.
        pairs = itertools.zip_longest(repr(got), repr(wanted))
        here = max(next((i for i, (a, b) in enumerate(pairs) if a != b), 0) - 100, 0)
        shown, should = (f"{'…' if here else ''}{repr(value)[here : here + 600]}" for value in (got, wanted))
        raise AssertionError(f"{what}: got {shown}, and should have {should}")


async def refuses(store: Store, *changes: Change) -> None:
    """Raise AssertionError unless the store refuses these changes with `StoreUnavailable`."""
    try:
        await store.commit(changes)
    except StoreUnavailable:
        return
    raise AssertionError(f"it committed what it must refuse: {changes!r}")


def prompted(session: str, number: int, turn: str, key: str | None = None) -> Sequence[Change]:
    """Return what accepts a prompt."""
    return (
        AddEvent(session, number, turn, Prompt("hi", "turn")),
        AddTurn(turn, session, key, "digest", number, "someone"),
    )


async def added(store: Store, session: str, *bodies: tuple[str, Body]) -> None:
    """Make a session with these events, of owner and body each."""
    events = (AddEvent(session, number, *owned) for number, owned in enumerate(bodies, 1))
    await store.commit((AddSession(session, f"{session}'s", epoch="e"), *events))


def moved(turn: str, state: TurnState, *sources: TurnState) -> MoveTurn:
    return MoveTurn(turn, frozenset(sources), state)


def ended(owner: str, seq: int, work: str = "turn") -> Outcome:
    return Outcome(work, owner, "completed", seq, ends=True, stop_reason="end_turn", facts={"exitCode": 0})


async def unfinished(store: Store, session: str) -> Sequence[Work]:
    return [work for work in await store.unfinished() if work.session == session]


async def numbers(store: Store, session: str) -> Sequence[int]:
    return [row.number for row in await store.events(session, 0, keep_bytes=ALL)]
