"""When a wait for a drain or a restart is over, from what the gateway tells: pure.

A drain of an operator's has no end of its own: the gateway stays `draining` until somebody takes that back. What
is waited for is that no turn runs any more.

    waiting for   over when                                                           outcome
    a drain       no turn runs, and the operator's reason stands                      drained
                  that reason is gone, and it is the same process                     taken_back
                  it is another process, which knows of no drain                      restarted
    a restart     it is another process, and open                                     back
                  it is the same, which does not go down, and the reason is gone      taken_back
                  it is the same, and shuts down: nothing says that it comes back     shut_down
"""

from __future__ import annotations

import enum
from collections.abc import Collection

from attrs import frozen

from gateway_trio.core.exits import Exit

__all__ = ["Outcome", "Seen", "drain_is_over", "exit_of_outcome", "progress", "restart_is_over"]


class Outcome(enum.Enum):
    """How a wait ended. The values are words of `--json`."""

    DRAINED = "drained"
    BACK = "back"
    TAKEN_BACK = "taken_back"
    RESTARTED = "restarted"
    SHUT_DOWN = "shut_down"


def exit_of_outcome(outcome: Outcome) -> Exit:
    """Return the code: what was waited for has come, or will not come."""
    return Exit.DONE if outcome in (Outcome.DRAINED, Outcome.BACK) else Exit.REFUSED


@frozen
class Seen:
    """What a gateway told of itself. `same` says that it is the process that was asked.

    `left` is how long the phase lasts at most, in seconds; None where nothing bounds it.
    """

    phase: str
    reasons: Collection[str]
    turns: int
    execs: int
    left: float | None = None
    same: bool = True


def drain_is_over(seen: Seen) -> Outcome | None:
    """Return how the wait for an operator's drain ended; None if it goes on."""
    if not seen.same:
        return Outcome.RESTARTED
    if "operator" not in seen.reasons:
        return Outcome.TAKEN_BACK
    return Outcome.DRAINED if seen.turns == 0 else None


def restart_is_over(seen: Seen) -> Outcome | None:
    """Return how the wait for a restart ended; None if it goes on."""
    if not seen.same:
        return Outcome.BACK if seen.phase == "open" else None
    if "shutdown" in seen.reasons:
        return Outcome.SHUT_DOWN
    return None if "restart" in seen.reasons else Outcome.TAKEN_BACK


def progress(seen: Seen, left: float | None) -> str:
    """Return a line of at most some 70 characters that says how far it is.

    `left` is what is left now of `seen.left`, in seconds; None leaves it out.
    """
    reasons = f" ({', '.join(sorted(seen.reasons))})" if seen.reasons else ""
    line = f"{seen.phase}{reasons}: {_count(seen.turns, 'turn')}, {_count(seen.execs, 'exec')}"
    return line if left is None else f"{line}, at most {max(left, 0):.0f} s left"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
