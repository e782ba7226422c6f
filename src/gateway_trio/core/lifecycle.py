"""How a gateway goes from phase to phase: an event comes in, the next state and what to do go out. Pure.

`TRANSITIONS` says what an event does in a phase (`phases` says what these are); an entry that is missing is a
bug, and `step` raises it. Events that may come late (a second signal, an undrain after the fact) have entries that
do nothing or only move deadlines, so that whoever sends them need not look first.

Whoever calls `step` must carry out the actions in their order, in the same synchronous step.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from attrs import evolve, frozen

from gateway_trio.core.phases import FINAL, Asked, Phase, Reason, State

__all__ = [
    "Action",
    "Cut",
    "Drain",
    "Event",
    "ExecsDone",
    "ImpossibleTransition",
    "Opened",
    "SocketsClosed",
    "TurnsDone",
    "TurnsRecorded",
    "Undrain",
    "step",
]


class Action(enum.Enum):
    """What the shell must do after a step."""

    ANNOUNCE = "announce"  #: tell every connection the phase, before anything waits
    START_QUEUED = "start_queued"  #: each session's first waiting turn may run
    MOVE_DEADLINES = "move_deadlines"  #: the tree's shield and the coordinator look at the state again
    CANCEL_TURNS = "cancel_turns"  #: each running turn, by its own scope
    SETTLE_QUEUED = "settle_queued"  #: accepted and never started: end them, or leave them to a durable store
    END_EXECS = "end_execs"  #: refuse those that wait for a slot, end those that run
    CLOSE_SOCKETS = "close_sockets"  #: no new connections; each writer pulls to the end, then says goodbye


# --- events ---------------------------------------------------------------------------------------


@frozen
class Opened:
    """The store is ready and the doors may open."""


@frozen
class Drain:
    """Somebody asks for a drain.

    `at` is the caller's monotonic clock; the `*_seconds` count from it and matter for final reasons only.
    `exec_seconds` of None leaves the exec deadline to the moment at which the turns have been recorded.
    """

    reason: Reason
    asked: Asked
    at: float
    grace_seconds: float
    budget_seconds: float
    exec_seconds: float | None = None


@frozen
class Undrain:
    """A cause has passed. `OPERATOR` also takes back a `RESTART` whose turns were not cancelled yet."""

    reason: Reason


@frozen
class TurnsDone:
    """A final reason stands, and nothing runs or is being accepted, or the grace is over."""


@frozen
class TurnsRecorded:
    """No turn runs any more and each has its outcome. `exec_deadline` is the latest end of the execs."""

    exec_deadline: float


@frozen
class ExecsDone:
    """No exec is left, or their deadline has come."""


@frozen
class SocketsClosed:
    """Every socket was closed or given up."""


@frozen
class Cut:
    """The tree's deadline (or a bug) ended the way down before its end. Whatever stands is left."""


Event = Opened | Drain | Undrain | TurnsDone | TurnsRecorded | ExecsDone | SocketsClosed | Cut
Step = tuple[State, tuple[Action, ...]]


class ImpossibleTransition(Exception):
    """An event came in a phase in which it cannot: a bug in the shell, never a client's doing."""


# --- what an event does ---------------------------------------------------------------------------


def _with_reason(state: State, event: Drain) -> State:
    asked = {**state.asked, event.reason: state.asked.get(event.reason, event.asked)}
    state = evolve(state, asked=MappingProxyType(asked))
    if event.reason not in FINAL:
        return state
    execs = math.inf if event.exec_seconds is None else event.at + event.exec_seconds
    return evolve(
        state,
        turn_deadline=min(state.turn_deadline, event.at + event.grace_seconds),
        exec_deadline=min(state.exec_deadline, execs),
        ends=min(state.ends, event.at + event.budget_seconds),
    )


def _nothing(state: State, event: Event) -> Step:  # noqa: ARG001
    return state, ()


def _open(state: State, event: Opened) -> Step:  # noqa: ARG001
    if state.asked:
        return evolve(state, phase=Phase.DRAINING), (Action.ANNOUNCE,)
    return evolve(state, phase=Phase.OPEN), (Action.START_QUEUED,)


def _drain_while_starting(state: State, event: Drain) -> Step:
    state = _with_reason(state, event)
    if state.final:
        return evolve(state, phase=Phase.CLOSING), (Action.MOVE_DEADLINES, Action.CLOSE_SOCKETS)
    return state, ()


def _drain(state: State, event: Drain) -> Step:
    """From `open`: the phase changes. In `draining`: a reason or a deadline may be new, and is told if so."""
    new = evolve(_with_reason(state, event), phase=Phase.DRAINING)
    if new == state:
        return state, ()
    return new, (Action.MOVE_DEADLINES, Action.ANNOUNCE)


def _drain_again(state: State, event: Drain) -> Step:
    """Past `draining` a final reason can only make haste, and is what decides the exit code."""
    new = _with_reason(state, event)
    return (state, ()) if new == state else (new, (Action.MOVE_DEADLINES,))


def _undrain(state: State, event: Undrain) -> Step:
    passed = {event.reason}
    if event.reason is Reason.OPERATOR:
        passed.add(Reason.RESTART)
    passed.discard(Reason.SHUTDOWN)
    left = {reason: asked for reason, asked in state.asked.items() if reason not in passed}
    if len(left) == len(state.asked):
        return state, ()
    state = evolve(state, asked=MappingProxyType(left))
    if not state.final:
        state = evolve(state, turn_deadline=math.inf, exec_deadline=math.inf, ends=math.inf)
    if left:
        return state, (Action.MOVE_DEADLINES, Action.ANNOUNCE)
    opened = evolve(state, phase=Phase.OPEN)
    return opened, (Action.MOVE_DEADLINES, Action.ANNOUNCE, Action.START_QUEUED)


def _cancel(state: State, event: TurnsDone) -> Step:  # noqa: ARG001
    if not state.final:
        raise ImpossibleTransition(f"turns were to end without a final reason, only {set(state.reasons)}")
    actions = (Action.ANNOUNCE, Action.SETTLE_QUEUED, Action.CANCEL_TURNS)
    return evolve(state, phase=Phase.CANCELLING), actions


def _finish(state: State, event: TurnsRecorded) -> Step:
    deadline = min(state.exec_deadline, event.exec_deadline)
    return evolve(state, phase=Phase.FINISHING, exec_deadline=deadline), (Action.ANNOUNCE,)


def _close(state: State, event: ExecsDone) -> Step:  # noqa: ARG001
    actions = (Action.ANNOUNCE, Action.END_EXECS, Action.CLOSE_SOCKETS)
    return evolve(state, phase=Phase.CLOSING), actions


def _closed(state: State, event: SocketsClosed | Cut) -> Step:  # noqa: ARG001
    return evolve(state, phase=Phase.CLOSED), ()


TRANSITIONS: Mapping[Phase, Mapping[type, Callable[..., Step]]] = MappingProxyType(
    {
        Phase.STARTING: {Opened: _open, Drain: _drain_while_starting, Undrain: _nothing, Cut: _closed},
        Phase.OPEN: {Drain: _drain, Undrain: _nothing, Cut: _closed},
        Phase.DRAINING: {Drain: _drain, Undrain: _undrain, TurnsDone: _cancel, Cut: _closed},
        Phase.CANCELLING: {Drain: _drain_again, Undrain: _nothing, TurnsRecorded: _finish, Cut: _closed},
        Phase.FINISHING: {Drain: _drain_again, Undrain: _nothing, ExecsDone: _close, Cut: _closed},
        Phase.CLOSING: {Drain: _drain_again, Undrain: _nothing, SocketsClosed: _closed, Cut: _closed},
        Phase.CLOSED: {Drain: _nothing, Undrain: _nothing, Cut: _nothing},
    }
)


def step(state: State, event: Event) -> Step:
    """Return the state after `event` and the actions to carry out, in their order.

    Raises `ImpossibleTransition` where the table has no entry.
    """
    try:
        rule = TRANSITIONS[state.phase][type(event)]
    except KeyError:
        raise ImpossibleTransition(f"{type(event).__name__} while {state.phase.value}") from None
    return rule(state, event)
