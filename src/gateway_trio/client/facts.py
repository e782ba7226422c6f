"""What a gateway tells of itself and of a quick command, taken from the wire (docs/protocol.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import frozen

from gateway_trio.core.acp import OURS

__all__ = ["ExecFacts", "Phase", "SessionInfo"]


@frozen
class Phase:
    """Where the gateway stands. `remaining_seconds` is None where nothing bounds the phase; `accepts` are lanes;
    `revocable` says that the drain can be taken back.
    """

    name: str
    reasons: tuple[str, ...]
    remaining_seconds: float | None
    turns: int
    execs: int
    accepts: tuple[str, ...]
    revocable: bool

    @classmethod
    def from_wire(cls, params: Mapping[str, Any]) -> Phase:
        """Read a `_gateway-trio/phase`, or the answer to `status`."""
        left = params.get("remainingMs")
        return cls(
            name=str(params.get("phase", "")),
            reasons=tuple(map(str, params.get("reasons") or ())),
            remaining_seconds=left / 1000 if isinstance(left, int | float) else None,
            turns=int(params.get("turns") or 0),
            execs=int(params.get("execs") or 0),
            accepts=tuple(map(str, params.get("accepts") or ())),
            revocable=params.get("revocable") is True,
        )


@frozen
class ExecFacts:
    """How a quick command ended: the status is one of docs/protocol.md.

    `exit_code` and `signal` are None unless it ended so; `cut` counts characters left out of the output,
    `background` processes that it left running; `error` says why it could not be started. `output` is empty where
    it came as updates. `data` has the facts as they came.
    """

    id: str
    status: str
    exit_code: int | None
    signal: str | int | None
    seconds: float
    bytes: int
    cut: int
    background: int
    error: str | None
    output: str
    data: Mapping[str, Any]

    @classmethod
    def from_wire(cls, facts: Mapping[str, Any]) -> ExecFacts:
        return cls(
            id=str(facts.get("id", "")),
            status=str(facts.get("status", "unknown")),
            exit_code=facts.get("exitCode"),
            signal=facts.get("signal"),
            seconds=float(facts.get("seconds") or 0),
            bytes=int(facts.get("bytes") or 0),
            cut=int(facts.get("cut") or 0),
            background=int(facts.get("background") or 0),
            error=facts.get("error"),
            output=str(facts.get("output", "")),
            data=facts,
        )


@frozen
class SessionInfo:
    """A session in a list: `title` is its name, None for one that has none; `last` its highest number; `busy`
    whether a turn runs.
    """

    id: str
    title: str | None
    last: int
    busy: bool

    @classmethod
    def from_wire(cls, info: Mapping[str, Any]) -> SessionInfo:
        meta = info.get("_meta")
        ours = meta.get(OURS) if isinstance(meta, dict) else None
        ours = ours if isinstance(ours, dict) else {}
        title = info.get("title")
        return cls(
            id=str(info.get("sessionId", "")),
            title=title if isinstance(title, str) else None,
            last=int(ours.get("last") or 0),
            busy=ours.get("busy") is True,
        )
