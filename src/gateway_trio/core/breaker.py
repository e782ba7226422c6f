"""When a failing backend drains the gateway, and when that passes: a pure table, no clock, no I/O.

A breaker stands in one of three ways:

    closed → open → half-open → closed
               ↑________|

* `closed`: turns run. As many failures as `Limits.failures` within `window_seconds`, with no success between
  them, open it.
* `open`: the gateway drains for the reason `backend`, and a *probe* is due at `probe_at`. Each one that fails
  doubles the wait, up to `LONGEST_WAIT`; what the backend itself asked for (`Retry-After`) goes before the wait.
  A success of any kind, or an admin's word, makes it half-open.
* `half-open`: turns run again. The first failure opens it at once, with the wait doubled once more: a backend
  that answers probes and fails turns is not hammered. The first turn that succeeds closes it, and forgets all.

A success is a turn that was completed, or a probe. A failure is a turn or a probe that could not reach the
backend, and nothing else: what it rejected, what an agent could not do and what somebody cancelled tell nothing
about it. All sessions share one breaker, so that one whose history the backend cannot take, while others
succeed, never opens it.

`TRANSITIONS` says what an event does; it has an entry for each, since turns and probes may end at any time.
Time comes in with the events, on any clock that does not go back. Whoever calls `step` must carry out the actions
in the same synchronous step.

Sources: the three states are those of M. Nygard's circuit breaker ("Release It!", 2007); `Retry-After` is that of
RFC 9110, section 10.2.3.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from attrs import evolve, frozen

__all__ = [
    "LONGEST_WAIT",
    "Action",
    "Event",
    "Limits",
    "ProbeFailed",
    "ProbeSucceeded",
    "Reset",
    "Stand",
    "State",
    "TurnFailed",
    "TurnSucceeded",
    "asked_wait",
    "step",
]

#: Seconds; the wait before a probe doubles up to this, or to its first value where that is longer.
LONGEST_WAIT = 60.0

#: Seconds; a backend that asks to be left alone more often than this is probed no oftener.
_SHORTEST_WAIT = 1.0

#: Seconds; who asks to be left alone for longer is asked again after a day.
_LONGEST_ASKED = 86_400.0


class Stand(enum.Enum):
    """How the breaker stands. The values are the words of the wire."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Action(enum.Enum):
    """What the shell must do after a step."""

    DRAIN = "drain"  #: drain for the reason `backend`, and probe from `probe_at` on
    UNDRAIN = "undrain"  #: that reason has passed, and no probe is due any more


@frozen
class Limits:
    """So many `failures` within `window_seconds` open it; `probe_seconds` is the first wait for a probe."""

    failures: int
    window_seconds: float
    probe_seconds: float


@frozen
class State:
    """Everything that the table looks at. Times are on the caller's clock."""

    stand: Stand = Stand.CLOSED
    failures: tuple[float, ...] = ()  #: when, without a success since; fewer than `Limits.failures`
    wait: float = 0.0  #: seconds, the present wait of the backoff; 0 before the first
    probe_at: float = math.inf  #: `inf` unless it is open
    why: str = ""  #: what the last failure said


# --- events -----------------------------------------------------------------------------------------


@frozen
class TurnSucceeded:
    """A turn was completed."""

    at: float


@frozen
class TurnFailed:
    """A turn could not reach the backend. `retry_after`: seconds that it asked for, None for none."""

    at: float
    why: str = ""
    retry_after: float | None = None


@frozen
class ProbeSucceeded:
    """The backend answers again; or there is nothing to probe, and the wait for it is over."""

    at: float


@frozen
class ProbeFailed:
    """It does not answer. `retry_after`: seconds that it asked for, None for none."""

    at: float
    why: str = ""
    retry_after: float | None = None


@frozen
class Reset:
    """An admin says that the backend works."""

    at: float


Event = TurnSucceeded | TurnFailed | ProbeSucceeded | ProbeFailed | Reset
Step = tuple[State, tuple[Action, ...]]


def asked_wait(seconds: object) -> float | None:
    """Return the seconds for which a backend asked to be left alone, as far as they make sense.

    None for None, for what is no number, or none that is finite, and for what is below 0; at most a day.
    """
    if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        return None
    return float(min(seconds, _LONGEST_ASKED))


# --- what an event does -----------------------------------------------------------------------------


def _nothing(state: State, event: Event, limits: Limits) -> Step:  # noqa: ARG001
    return state, ()


def _forget(state: State, event: Event, limits: Limits) -> Step:  # noqa: ARG001
    return State(), ()


def _count(state: State, event: TurnFailed, limits: Limits) -> Step:
    begins = event.at - limits.window_seconds
    failures = (*(at for at in state.failures if at >= begins), event.at)
    if len(failures) < limits.failures:
        return evolve(state, failures=failures, why=event.why), ()
    return _open(state, event, limits)


def _open(state: State, event: TurnFailed, limits: Limits) -> Step:
    return _wait(evolve(state, stand=Stand.OPEN, failures=()), event, limits), (Action.DRAIN,)


def _again(state: State, event: ProbeFailed, limits: Limits) -> Step:
    return _wait(state, event, limits), ()


def _wait(state: State, event: TurnFailed | ProbeFailed, limits: Limits) -> State:
    """Return the state with the next probe's time: the backoff's, or the one that the backend asked for."""
    first = limits.probe_seconds
    wait = min(state.wait * 2, max(LONGEST_WAIT, first)) if state.wait else first
    asked = asked_wait(event.retry_after)
    pause = wait if asked is None else max(asked, min(wait, _SHORTEST_WAIT))
    return evolve(state, wait=wait, probe_at=event.at + pause, why=event.why)


def _leave_alone(state: State, event: TurnFailed, limits: Limits) -> Step:  # noqa: ARG001
    """A turn that ran when the breaker opened fails too: only what the backend asks for is new."""
    asked = asked_wait(event.retry_after)
    return evolve(state, probe_at=max(state.probe_at, event.at + (asked or 0.0))), ()


def _try_turns(state: State, event: Event, limits: Limits) -> Step:  # noqa: ARG001
    return evolve(state, stand=Stand.HALF_OPEN, probe_at=math.inf), (Action.UNDRAIN,)


TRANSITIONS: Mapping[Stand, Mapping[type, Callable[..., Step]]] = MappingProxyType(
    {
        Stand.CLOSED: {
            TurnSucceeded: _forget, TurnFailed: _count,
            ProbeSucceeded: _nothing, ProbeFailed: _nothing, Reset: _nothing,
        },
        Stand.OPEN: {
            TurnSucceeded: _try_turns, TurnFailed: _leave_alone,
            ProbeSucceeded: _try_turns, ProbeFailed: _again, Reset: _try_turns,
        },
        Stand.HALF_OPEN: {
            TurnSucceeded: _forget, TurnFailed: _open,
            ProbeSucceeded: _nothing, ProbeFailed: _nothing, Reset: _nothing,
        },
    }
)  # fmt: skip


def step(state: State, event: Event, limits: Limits) -> Step:
    """Return the state after `event` and the actions to carry out, in their order."""
    return TRANSITIONS[state.stand][type(event)](state, event, limits)
