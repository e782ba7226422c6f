"""What an agent emits, in the form in which ACP sends it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway_trio.agents import Emission, Plan, ToolCall, ToolUpdate

__all__ = ["UPDATE_BYTES", "TooBig", "clean", "to_update"]

#: No frame is over 256 KiB; this leaves room for what stands around an update.
UPDATE_BYTES = 250 * 1024


class TooBig(Exception):
    """A tool call or plan that fits in no frame."""


def clean(text: str) -> str:
    """Join surrogate pairs and replace lone ones, which no frame can carry."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def to_update(emission: Emission) -> Mapping[str, Any]:
    """Return the `session/update` of a tool call, an update of one, or a plan.

    Raises `TooBig` over `UPDATE_BYTES` of JSON, and TypeError for anything else or for what is no JSON.
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
    whole = _as_sent({**extra, **data})
    size = len(json.dumps(whole))
    if size > UPDATE_BYTES:
        raise TooBig(f"a {data['sessionUpdate']} of {size} bytes fits in no frame; at most {UPDATE_BYTES}")
    return whole


def _as_sent(update: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a copy as a client will read it: what the agent does to its own objects later changes nothing."""
    try:
        written = json.dumps(update, ensure_ascii=False, allow_nan=False)
    except ValueError as fault:  # NaN, an infinity, a list that holds itself
        raise TypeError(f"an agent cannot emit what is no JSON: {fault}") from None
    copy: Mapping[str, Any] = json.loads(clean(written))
    return copy
