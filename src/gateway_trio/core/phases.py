"""Where a gateway stands, why, and what may begin there: a value, and a table.

A gateway is in one *phase* at a time, and phases only go forward, with one exception: a drain whose causes
have all passed goes back from `draining` to `open`.

    starting → open ⇄ draining → cancelling → finishing → closing → closed

A drain has a set of *reasons*. `operator` and `backend` can pass and have no deadline; `restart` and
`shutdown` are final: only they lead past `draining`, and only they set deadlines. A `restart` can be taken
back until turns are cancelled; a `shutdown` never.

Three deadlines stand in the state, all `inf` while no final reason stands, and all only ever move earlier:

* `turn_deadline`: the end of the grace. Turns that still run then are cancelled.
* `exec_deadline`: the one deadline of all execs, running, waiting and not yet asked for.
* `ends`: the end of everything. The shield around the whole tree gets this deadline.

`ADMITS` says which kind of work may begin in which phase, and nothing else in the program decides that. How one
state follows another stands in `lifecycle`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from types import MappingProxyType

from attrs import field, frozen

__all__ = ["ADMITS", "FINAL", "Asked", "Lane", "Phase", "Reason", "State"]


class Phase(enum.Enum):
    """Where the process stands. The values are the words of the wire."""

    STARTING = "starting"
    OPEN = "open"
    DRAINING = "draining"
    CANCELLING = "cancelling"
    FINISHING = "finishing"
    CLOSING = "closing"
    CLOSED = "closed"


class Lane(enum.Enum):
    """A kind of work. `ALIAS` and `CONNECT` are not lanes of the wire but are admitted by the same table."""

    TURN = "turn"
    ALIAS = "alias"
    EXEC = "exec"
    CONTROL = "control"
    CONNECT = "connect"


class Reason(enum.Enum):
    """Why a gateway drains."""

    OPERATOR = "operator"
    BACKEND = "backend"
    RESTART = "restart"
    SHUTDOWN = "shutdown"


FINAL = frozenset({Reason.RESTART, Reason.SHUTDOWN})

_WATCH_AND_OPERATE = frozenset({Lane.EXEC, Lane.CONTROL, Lane.CONNECT})

ADMITS: Mapping[Phase, frozenset[Lane]] = MappingProxyType(
    {
        Phase.STARTING: frozenset(),
        Phase.OPEN: frozenset(Lane),
        Phase.DRAINING: _WATCH_AND_OPERATE,
        Phase.CANCELLING: _WATCH_AND_OPERATE,
        Phase.FINISHING: _WATCH_AND_OPERATE,
        Phase.CLOSING: frozenset(),
        Phase.CLOSED: frozenset(),
    }
)


@frozen
class Asked:
    """Who asked for a drain, and when (Unix seconds), for `status`."""

    by: str
    at: float
    why: str = ""


@frozen
class State:
    """Everything that the tables look at."""

    phase: Phase = Phase.STARTING
    asked: Mapping[Reason, Asked] = field(factory=lambda: MappingProxyType({}))
    turn_deadline: float = math.inf
    exec_deadline: float = math.inf
    ends: float = math.inf

    @property
    def reasons(self) -> frozenset[Reason]:
        return frozenset(self.asked)

    @property
    def final(self) -> bool:
        """Whether a reason stands that leads to the end of the process."""
        return bool(FINAL & self.reasons)

    @property
    def revocable(self) -> bool:
        """Whether an undrain could still open the gateway again."""
        return self.phase is Phase.DRAINING and Reason.SHUTDOWN not in self.asked

    @property
    def phase_deadline(self) -> float:
        """When the present phase ends at the latest, on the caller's clock; `inf` where nothing bounds it."""
        match self.phase:
            case Phase.DRAINING:
                return self.turn_deadline
            case Phase.FINISHING:
                return self.exec_deadline
            case Phase.CANCELLING | Phase.CLOSING:
                return self.ends
            case _:
                return math.inf

    def admits(self, lane: Lane) -> bool:
        """Whether work of this lane may begin now."""
        return lane in ADMITS[self.phase]
