"""What an exec's end means to a person: one line, or none where the output says it all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["closing_line"]


def closing_line(facts: Mapping[str, Any], *, silent: bool) -> str | None:
    """Return what to write below the output, None for a command that just ended well.

    `facts` are those of the wire (`status`, `exitCode`, `signal`, `seconds`, `background`, `error`); `silent`
    says that there was no output.
    """
    said = [_ended(facts)]
    if facts["background"]:
        said.append(_left(facts["background"], ended=facts.get("backgroundEnded", False)))
    if facts["status"] == "exited" and facts["exitCode"] == 0 and not facts["background"]:
        return "[no output]" if silent else None
    return f"[{'; '.join(said)}]"


def _ended(facts: Mapping[str, Any]) -> str:
    after = f"after {facts['seconds']:.1f} s"
    match facts["status"]:
        case "exited":
            return f"exit code {facts['exitCode']} {after}"
        case "signalled":
            return f"ended by signal {facts['signal']} {after}"
        case "timeout":
            return f"timed out {after}, and was ended"
        case "killed":
            return f"killed {after}"
        case "cancelled":
            return f"cancelled {after}"
        case "output_limit":
            return f"too much output {after}, and was ended"
        case "deadline":
            return f"ended {after}, because the gateway goes down"
        case "spawn_failed":
            return f"could not be started: {facts['error']}"
        case _:
            return "outcome unknown"


def _left(count: int, *, ended: bool) -> str:
    processes = "1 process" if count == 1 else f"{count} processes"
    return (
        f"{processes} it had left running {'was' if count == 1 else 'were'} ended"
        if ended
        else f"{processes} left running"
    )
