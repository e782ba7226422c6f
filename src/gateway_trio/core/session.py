"""One conversation: which turn runs, which wait, and what a prompt does that comes while one runs.

A turn's way, from admission to its one outcome:

    accepting → queued → running → completed | cancelled | interrupted | failed
       ↓          ↓
    refused    cancelled | interrupted

`accepting` means admitted and not yet stored: it has its place in the queue, which is the order of admission,
but it neither starts nor counts as accepted. `MOVES` is the whole of it; a move that is not in it is a bug.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

__all__ = ["MOVES", "OUTCOMES", "Busy", "Conversation", "ImpossibleMove", "Place", "TurnState"]


class TurnState(enum.Enum):
    """The states of a turn. The values are the words of the wire, but `accepting` and `refused`."""

    ACCEPTING = "accepting"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    REFUSED = "refused"


_S = TurnState

#: How an accepted prompt ends: in exactly one of these.
OUTCOMES = frozenset({_S.COMPLETED, _S.CANCELLED, _S.INTERRUPTED, _S.FAILED})

MOVES: Mapping[TurnState, frozenset[TurnState]] = MappingProxyType(
    {
        _S.ACCEPTING: frozenset({_S.QUEUED, _S.REFUSED}),
        _S.QUEUED: frozenset({_S.RUNNING, _S.CANCELLED, _S.INTERRUPTED}),
        _S.RUNNING: OUTCOMES,
        _S.COMPLETED: frozenset(),
        _S.CANCELLED: frozenset(),
        _S.INTERRUPTED: frozenset(),
        _S.FAILED: frozenset(),
        _S.REFUSED: frozenset(),
    }
)


class Busy(enum.Enum):
    """What a prompt does that comes while a turn runs or waits."""

    QUEUE = "queue"
    INTERRUPT = "interrupt"
    REFUSE = "refuse"


class ImpossibleMove(Exception):
    """A turn was to move where the table has no entry: a bug, never a client's doing."""


class Place:
    """A turn's state. The shell's turn inherits from it."""

    def __init__(self) -> None:
        self.state = TurnState.ACCEPTING

    def move(self, state: TurnState) -> None:
        """Change the state. Raises `ImpossibleMove` where `MOVES` has no entry."""
        if state not in MOVES[self.state]:
            raise ImpossibleMove(f"{self.state.value} → {state.value}")
        self.state = state


P = TypeVar("P", bound=Place)


class Conversation(Generic[P]):
    """The running turn and the queue of one session. Nothing is merged, and nothing is dropped in silence."""

    def __init__(self, queue_limit: int) -> None:
        self.running: P | None = None
        self.queue: list[P] = []
        self._limit = queue_limit

    @property
    def idle(self) -> bool:
        return self.running is None and not self.queue

    def admit(self, place: P, busy: Busy) -> int | None:
        """Give the turn its place and return it, 0 = next; None means that the session is too busy for it.

        With `INTERRUPT` the place is the head. Cancelling what runs is the caller's next step, and only once
        the turn is stored.
        """
        if not self.idle and busy is Busy.REFUSE:
            return None
        # One that can start at once does not wait, so it takes no place in the queue.
        if len(self.queue) >= self._limit + (self.running is None):
            return None
        position = 0 if busy is Busy.INTERRUPT else len(self.queue)
        self.queue.insert(position, place)
        return position

    def stored(self, place: P) -> None:
        """The prompt is durable: from here on it is accepted."""
        place.move(TurnState.QUEUED)

    def restore(self, place: P) -> None:
        """Let one that was accepted before wait at the end, whatever the limit."""
        place.move(TurnState.QUEUED)
        self.queue.append(place)

    def refuse(self, place: P) -> None:
        """The prompt could not be stored: it leaves the queue and is not accepted."""
        place.move(TurnState.REFUSED)
        self.queue.remove(place)

    def start(self) -> P | None:
        """Let the head of the queue run, if nothing runs and the head is stored; return it."""
        if self.running is not None or not self.queue or self.queue[0].state is not TurnState.QUEUED:
            return None
        self.running = self.queue.pop(0)
        self.running.move(TurnState.RUNNING)
        return self.running

    def end(self, place: P, outcome: TurnState) -> None:
        """Record the running turn's outcome; the next one may start."""
        if self.running is not place:
            raise ImpossibleMove(f"{place.state.value}, and does not run here")
        place.move(outcome)
        self.running = None

    def drop(self, place: P, outcome: TurnState) -> bool:
        """Take a stored turn out of the queue with an outcome; False if it does not wait there any more."""
        if place.state is not TurnState.QUEUED:
            return False
        self.queue.remove(place)
        place.move(outcome)
        return True
