"""What an agent emits: taken into its session's log, in the form in which ACP sends it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping
from typing import Any

import trio

from gateway_trio.agents import (
    AgentError,
    Emission,
    Emit,
    Plan,
    Stop,
    TextDelta,
    ThoughtDelta,
    ToolCall,
    ToolUpdate,
    TurnOver,
    Usage,
)
from gateway_trio.core.events import Kind, Message, Update
from gateway_trio.core.jsonrpc import DEPTH, check_depth
from gateway_trio.core.text import clean
from gateway_trio.journal import Over
from gateway_trio.store import StoreUnavailable
from gateway_trio.turn import Turn

__all__ = ["UPDATE_BYTES", "TooBig", "checkpoint", "emit_for", "fit", "to_update"]

#: No frame is over 256 KiB; this leaves room for what stands around an update.
UPDATE_BYTES = 250 * 1024


class TooBig(Exception):
    """A tool call, a plan or a permission request that fits in no frame."""


def emit_for(turn: Turn) -> Emit:
    """Return the `emit` of a turn. It may wait for the store, never for a client.

    It raises `TurnOver` once the turn has its outcome, and `AgentError` for what no frame or store would take.
    """

    async def emit(emission: Emission) -> None:
        await checkpoint(turn)
        turn.emitted()
        try:
            await _take(turn, emission)
        except Over:
            raise TurnOver(f"turn {turn.id} has its outcome") from None
        except StoreUnavailable as fault:
            raise AgentError("the answer could not be stored") from fault

    return emit


async def checkpoint(turn: Turn) -> None:
    """Let others run; raise `TurnOver` once the turn has its outcome, also where Cancelled would be due.

    Whoever has ignored that so far would ignore it for ever.
    """
    await trio.lowlevel.cancel_shielded_checkpoint()
    if turn.over:
        raise TurnOver(f"turn {turn.id} has its outcome")
    await trio.lowlevel.checkpoint_if_cancelled()


async def _take(turn: Turn, emission: Emission) -> None:
    match emission:
        case TextDelta(text):
            await _say(turn, Kind.ANSWER, text)
        case ThoughtDelta(text):
            await _say(turn, Kind.THOUGHT, text)
        case Usage():
            turn.session.usage = emission
            turn.session.wake()
        case Stop(reason):
            turn.stop_reason = reason
        case _:
            try:
                data = to_update(emission)
            except TooBig as fault:
                raise AgentError(str(fault)) from None
            await turn.session.record(turn.id, lambda _: [Update(data)], over=lambda: turn.over)


async def _say(turn: Turn, kind: Kind, text: str) -> None:
    def open_message() -> Awaitable[object]:
        return turn.session.record(turn.id, lambda _: [Message(kind)], over=lambda: turn.over)

    await turn.session.say(turn.id, kind, clean(text), open_message)


def to_update(emission: Emission) -> Mapping[str, Any]:
    """Return the `session/update` of a tool call, an update of one, or a plan.

    Raises `TooBig` over `UPDATE_BYTES` of JSON, and TypeError for anything else, for what is no JSON or nested too
    deep, and for a `_meta` that is no object.
    """
    match emission:
        case ToolCall(id_, title, kind, status, extra):
            data = {
                "sessionUpdate": "tool_call",
                "toolCallId": id_,
                "title": title,
                "kind": kind,
                "status": status,
            }
        case ToolUpdate(id_, status, title, extra):
            data = {"sessionUpdate": "tool_call_update", "toolCallId": id_}
            data |= {k: v for k, v in (("status", status), ("title", title)) if v is not None}
        case Plan(entries):
            data, extra = {"sessionUpdate": "plan"}, {"entries": [dict(entry) for entry in entries]}
        case _:
            raise TypeError(f"an agent cannot emit {type(emission).__name__}")
    made = fit({**extra, **data}, str(data["sessionUpdate"]), within=2)
    if not isinstance(made.get("_meta"), dict | None):
        raise TypeError("an agent cannot emit a _meta that is no object: what is ours has its place there too")
    return made


def fit(message: Mapping[str, Any], what: str, *, within: int) -> Mapping[str, Any]:
    """Return a copy as a client will read it.

    Raises `TooBig`, which says `what` it is, over `UPDATE_BYTES` of JSON, and TypeError for what is no JSON, or
    nested so deep that its frame would be refused: `within` is in how many objects it stands there.
    """
    whole = _as_sent(message, DEPTH - within)
    size = len(json.dumps(whole))
    if size > UPDATE_BYTES:
        raise TooBig(f"a {what} of {size} bytes fits in no frame; at most {UPDATE_BYTES}")
    return whole


def _as_sent(update: Mapping[str, Any], depth: int) -> Mapping[str, Any]:
    """Return a copy as a client will read it: what the agent does to its own objects later changes nothing."""
    try:
        written = json.dumps(update, ensure_ascii=False, allow_nan=False)
        copy: Mapping[str, Any] = json.loads(clean(written))
        if written.count("[") + written.count("{") > depth:
            check_depth(copy, depth)
    except RecursionError:
        raise TypeError(f"an agent cannot emit what is nested deeper than {depth}") from None
    except ValueError as fault:  # NaN, an infinity, a list that holds itself
        raise TypeError(f"an agent cannot emit what is no JSON: {fault}") from None
    return copy
