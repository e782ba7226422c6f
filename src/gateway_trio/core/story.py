"""A whole session as lines for a person who reads it afterwards.

It is what a chat would have shown (`core.transcript`), and what only matters afterwards: how quick commands ended
that just ended well, and what has no end yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway_trio.core.transcript import Transcript, notice
from gateway_trio.core.updates import State, Update

__all__ = ["Story"]

_NOT_ENDED = {
    ("turn", "queued"): "a turn waits",
    ("turn", "running"): "a turn runs",
    ("exec", "queued"): "a quick command waits",
    ("exec", "running"): "a quick command runs",
}


class Story:
    """Updates in, lines out."""

    def __init__(self) -> None:
        self._transcript = Transcript()
        self._going: dict[str, State] = {}

    def take(self, update: Update) -> list[str]:
        """Return the lines that are complete with this update, without their newlines."""
        lines = self._transcript.take(update)
        if isinstance(update, State):
            self._going.pop(update.id, None)
            if not update.ends:
                self._going[update.id] = update
                return [
                    line for line in lines if not line.startswith("· queued")
                ]  # it is over, or told at the end
            if update.work == "exec" and _ended_well(update.data):
                lines.append(notice(f"exit code 0 after {update.data.get('seconds', 0):.1f} s"))
        return lines

    def end(self) -> list[str]:
        """Return what is left: lines that are not complete, and what has not ended."""
        left = [notice(_NOT_ENDED.get((state.work, state.state), state.state)) for state in self._going.values()]
        return [*self._transcript.flush(), *left]


def _ended_well(facts: Mapping[str, Any]) -> bool:
    """Whether the output says nothing of how it ended (`core.facts`)."""
    return facts.get("status") == "exited" and facts.get("exitCode") == 0 and not facts.get("background")
