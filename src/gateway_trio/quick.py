"""One exec: as it was asked for, and what is reported of its end."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import trio
from attrs import evolve, frozen

from gateway_trio.core.commands import ExecCommand, Role
from gateway_trio.core.events import Change
from gateway_trio.core.jsonrpc import Problem
from gateway_trio.execs import Facts, Status, Stop
from gateway_trio.sessions import Session

__all__ = ["STATES", "Exec", "ExecAsk", "once", "to_wire"]

#: What a status is among the states of the wire.
STATES: Mapping[Status, str] = MappingProxyType(
    {
        Status.EXITED: "completed",
        Status.SIGNALLED: "completed",
        Status.TIMEOUT: "failed",
        Status.OUTPUT_LIMIT: "failed",
        Status.SPAWN_FAILED: "failed",
        Status.KILLED: "cancelled",
        Status.CANCELLED: "cancelled",
        Status.DEADLINE: "interrupted",
        Status.UNKNOWN: "interrupted",
    }
)


@frozen
class ExecAsk:
    """A quick command as it was asked for. `session` is None for one that is answered once, with everything."""

    command: ExecCommand
    words: tuple[str, ...]
    principal: str
    session: Session | None = None
    text: str = ""
    sender: str = ""
    key: str | None = None
    digest: str = ""


class Exec:
    """One exec, from admission to its end. It can be stopped from the first moment on."""

    def __init__(self, ask: ExecAsk) -> None:
        self.id = "x" + secrets.token_hex(3)
        self.ask = ask
        self.digest = ask.digest
        self.seq = 0
        self.began = time.time()
        self.state = "queued"
        self.ended: Change | None = None
        self.ended_at = 0
        self.output: list[str] = []  #: of one without a session
        self.refused: list[Callable[[Problem], object]] = []
        self.left: Problem | None = None  #: none outlives the program
        self.finished: list[Callable[[Exec], object]] = []  #: called at the end of one without a session
        self.stop = Stop()
        self.ready = trio.Event()  #: it has a slot, or was stopped before it got one
        self.last = ""  #: the last character of its output

    @property
    def session(self) -> Session | None:
        """Where its events stand."""
        return self.ask.session

    def close(self) -> None:
        """Let go of what only an exec without an end needs: whoever sent it may keep it for long."""
        self.ask = evolve(self.ask, text="", words=())
        self.refused.clear()
        self.finished.clear()

    @property
    def admin(self) -> bool:
        """Whether only admins may see what it says."""
        return self.ask.command.role is Role.ADMIN


def to_wire(exec_: Exec, facts: Facts) -> dict[str, Any]:
    """Return the facts in the words of the wire."""
    wire = {
        "id": exec_.id,
        "status": facts.status.value,
        "exitCode": facts.exit_code,
        "signal": facts.signal,
        "seconds": round(facts.seconds, 3),
        "bytes": facts.bytes,
        "cut": facts.cut,
        "background": facts.background,
    }
    if facts.background and exec_.ask.command.background == "kill":
        wire["backgroundEnded"] = True
    if facts.error is not None:
        wire["error"] = facts.error
    return wire


#: Bytes of JSON that the output may take in an answer; no frame is over 256 KiB.
_ONCE_BYTES = 240 * 1024


def once(exec_: Exec) -> dict[str, Any]:
    """Return the answer to `_gateway-trio/exec`: the facts, and the output as far as it fits into one frame."""
    assert exec_.ended is not None  # noqa: S101 - called at its end
    facts = dict(exec_.ended.facts)
    whole = output = "".join(exec_.output)
    keep = len(whole)
    while len(json.dumps(output)) > _ONCE_BYTES:
        keep = keep * 3 // 4
        output = f"{whole[: keep // 2]}\n[… {len(whole) - keep} characters left out …]\n{whole[-(keep // 2) :]}"
    facts["cut"] += len(whole) - keep
    return {**facts, "output": output}
