"""What a supervisor is told, in the words of sd_notify(3), and whether there is one.

    not told → READY → RELOADING → STOPPING

READY=1       when the doors are open.
STOPPING=1    when the drain cannot be taken back any more. For systemd there is no way back from it: it kills what
              is still there at the end of its own stop timeout, which starts here.
RELOADING=1   in its place where the process is going to replace itself. systemd sees neither an end nor another
              main process then, only a service that is busy until its READY=1, which the successor says. Without
              MONOTONIC_USEC newer ones (Type=notify-reload) would not take it.

With each of the last two goes EXTEND_TIMEOUT_USEC, as each starts a timer of systemd's. STATUS is one line for a
person, at each change of the phase, the reasons or the deadlines.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping

from attrs import frozen

from gateway_trio.core.phases import FINAL, Phase, Reason, State

__all__ = ["Standing", "Told", "is_supervised", "news", "watchdog_seconds"]


class Standing(enum.Enum):
    """How the service stands, as far as the supervisor was told."""

    NOTHING = ""
    READY = "READY=1"
    RELOADING = "RELOADING=1"
    STOPPING = "STOPPING=1"


@frozen
class Told:
    """What was told last."""

    standing: Standing = Standing.NOTHING
    status: str = ""


def news(
    told: Told, state: State, *, in_place: bool, turns: int, execs: int, now: float, beyond: float, clock: int
) -> tuple[Told, str]:
    """Return what is told now, and the datagram that says what of it is new; "" if nothing is.

    Args:
        told: what was told before.
        state: the gateway's; past `starting`.
        in_place: whether a restart replaces the process, where it would else end.
        turns: how many run.
        execs: how many run or wait.
        now: seconds, on the clock of the state's deadlines.
        beyond: seconds, from the end of the drain's budget until nothing of the process is left for certain.
        clock: CLOCK_MONOTONIC in microseconds.

    """
    new = Told(_standing(state, in_place=in_place), _status(state, turns, execs, now))
    lines = []
    if new.standing is not told.standing:
        lines.append(new.standing.value)
        if new.standing is Standing.RELOADING:
            lines.append(f"MONOTONIC_USEC={clock}")
        if new.standing is not Standing.READY:
            lines.append(f"EXTEND_TIMEOUT_USEC={round((max(state.ends - now, 0) + beyond) * 1e6)}")
    if new.status != told.status:
        lines.append(f"STATUS={new.status}")
    return new, "\n".join(lines)


def _standing(state: State, *, in_place: bool) -> Standing:
    if not state.final or state.revocable:
        return Standing.READY
    return Standing.RELOADING if in_place and Reason.SHUTDOWN not in state.asked else Standing.STOPPING


def _status(state: State, turns: int, execs: int, now: float) -> str:
    why = ", ".join(sorted(reason.value for reason in state.reasons))
    until = state.phase_deadline - now
    limit = "" if until == math.inf else f", at most {max(math.ceil(until), 0)} s"
    match state.phase:
        case Phase.OPEN:
            return "Open"
        case Phase.DRAINING:
            back = "" if FINAL & state.reasons else " until that is taken back"
            return f"Draining ({why}): no new prompts{back}; {_count(turns, 'turn')} to end{limit}"
        case Phase.CANCELLING:
            return f"Draining ({why}): recording {_count(turns, 'cancelled turn')}"
        case Phase.FINISHING:
            return f"Draining ({why}): {_count(execs, 'exec')} to end{limit}"
        case _:
            return f"Closing ({why})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def is_supervised(environ: Mapping[str, str], pid: int) -> bool:
    """Whether somebody starts the process `pid` again when it ends: only where that is certain.

    `SYSTEMD_EXEC_PID` (systemd.exec(5), from version 248) names the process that systemd started itself, and is
    inherited by others in vain; `NOTIFY_SOCKET` is set by whoever speaks sd_notify(3). Of any other supervisor we
    do not know; a process that replaces itself does no harm under one, as it sees none of it.
    """
    return environ.get("SYSTEMD_EXEC_PID") == str(pid) or bool(environ.get("NOTIFY_SOCKET"))


def watchdog_seconds(environ: Mapping[str, str], pid: int) -> float | None:
    """Return within what time a supervisor wants each sign of life, None if it wants none.

    By sd_watchdog_enabled(3).
    """
    limit = environ.get("WATCHDOG_USEC", "")
    if not (limit.isascii() and limit.isdecimal() and int(limit)):
        return None
    return int(limit) / 1e6 if environ.get("WATCHDOG_PID", str(pid)) == str(pid) else None
