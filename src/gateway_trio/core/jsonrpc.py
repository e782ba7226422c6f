"""Text ↔ JSON-RPC 2.0, the errors that we answer, and the codes with which we close.

Sources: the JSON-RPC 2.0 specification (sections 4 to 6; ACP has no batches), RFC 8259 for JSON, RFC 6455
section 7.4 for close codes. Two tables: `FAULTS` has every `reason` that an error can carry, `CLOSES` every
close code; clients branch on these and on nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from attrs import frozen

__all__ = [
    "CLOSES",
    "DEPTH",
    "FAULTS",
    "MAX_ID_CHARS",
    "Close",
    "Notification",
    "Problem",
    "Request",
    "RequestId",
    "Response",
    "check_depth",
    "comes_back",
    "encode",
    "error",
    "notification",
    "parse",
    "problem",
    "request",
    "result",
]

RequestId = str | int | float | None

#: Of an id that a client gives; a number's are its digits. Every answer repeats it, and an answer has its bounds.
MAX_ID_CHARS = 256


@frozen
class Request:
    """Asks for one answer with the same id."""

    id: RequestId
    method: str
    params: Any


@frozen
class Notification:
    """Is never answered."""

    method: str
    params: Any


@frozen
class Response:
    """The answer to a request of ours. Exactly one of `result` and `error` counts; `error` wins."""

    id: RequestId
    result: Any
    error: Any


@frozen
class Problem:
    """An error for a person (`message`) and for a program (`reason` and the rest, in `data`).

    `admitted` is None where the request was no prompt and no exec; False means that nothing was started and no
    model was called.
    """

    code: int
    message: str
    reason: str
    retryable: bool = False
    retry_after_ms: int | None = None
    admitted: bool | None = None
    extra: Mapping[str, Any] = MappingProxyType({})

    def to_wire(self) -> dict[str, Any]:
        data: dict[str, Any] = {"reason": self.reason, "retryable": self.retryable, **self.extra}
        if self.retry_after_ms is not None:
            data["retryAfterMs"] = self.retry_after_ms
        if self.admitted is not None:
            data["admitted"] = self.admitted
        return {"code": self.code, "message": self.message, "data": data}


#: reason → (code, retryable). The first block is JSON-RPC's, the second ACP's, the third ours.
FAULTS: Mapping[str, tuple[int, bool]] = MappingProxyType(
    {
        "parse": (-32700, False),
        "invalid_request": (-32600, False),
        "not_initialized": (-32600, False),
        "method_not_found": (-32601, False),
        "invalid_params": (-32602, False),
        "usage": (-32602, False),
        "internal": (-32603, False),
        "failed": (-32603, False),
        "turn_idle": (-32603, True),
        "turn_too_long": (-32603, True),
        "auth_required": (-32000, False),
        "unknown_session": (-32002, False),
        "unknown_exec": (-32002, False),
        "interrupted": (-32800, True),
        "request_cancelled": (-32800, False),
        "draining": (-32010, True),
        "held": (-32010, False),
        "busy": (-32011, True),
        "conflict": (-32012, False),
        "forbidden": (-32013, False),
        "store_unavailable": (-32014, True),
        "rate_limited": (-32015, True),
        "backend_unavailable": (-32016, True),
    }
)


def problem(reason: str, message: str, **more: Any) -> Problem:
    """Make the `Problem` of a reason; `more` are its other fields. Raises KeyError for one not in `FAULTS`."""
    code, retryable = FAULTS[reason]
    return Problem(code, message, reason, **{"retryable": retryable, **more})


@frozen
class Close:
    """Why a connection ends, and whether its client should come back."""

    code: int
    reason: str
    come_back: bool


CLOSES: Mapping[str, Close] = MappingProxyType(
    {
        "restart": Close(1012, "the gateway restarts; come back", come_back=True),
        "shutdown": Close(1012, "the gateway shuts down; come back", come_back=True),
        "policy": Close(1008, "not allowed", come_back=False),
        "too_big": Close(1009, "a message was too big", come_back=False),
        "internal": Close(1011, "our fault; come back later", come_back=True),
        "slow": Close(4101, "took no byte for too long; come back and resume", come_back=True),
        "keepalive": Close(4102, "no answer to a ping; come back", come_back=True),
        "revoked": Close(4501, "the token was revoked", come_back=False),
    }
)


#: Of the codes in `CLOSES`, those with which a client does not come back.
_FOR_GOOD = frozenset({close.code for close in CLOSES.values()} - {c.code for c in CLOSES.values() if c.come_back})


def comes_back(code: int | None) -> bool:
    """Whether a client comes back after this close code: by `CLOSES`, and after any other, or none (None)."""
    return code not in _FOR_GOOD


#: How deep a message may be nested. What `json` just about reads it cannot write again from deeper in the stack.
DEPTH = 100


def check_depth(value: Any, most: int = DEPTH) -> None:
    """Raise RecursionError for what `json` has read if it is nested deeper than `most`, itself included."""
    level = [value]
    for _ in range(most):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
    if any(isinstance(item, dict | list) for item in level):
        raise RecursionError(f"nested deeper than {most}")


def _not_a_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):  # which could not be sent back, as an id must
        raise ValueError(f"{digits[:20]} is out of range")
    return number


def parse(text: str) -> Request | Notification | Response | tuple[RequestId, Problem]:
    """Read one frame. What is no valid message becomes an id (None if it has none) and the error to answer.

    Never raises, whatever a client sends. A member that stands twice counts as its last (RFC 8259 section 4
    leaves it open).
    """
    try:
        value = json.loads(text, parse_constant=_not_a_number, parse_float=_finite)
        if text.count("[") + text.count("{") > DEPTH:
            check_depth(value)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate is no character
    except RecursionError:
        return None, problem("parse", "this JSON is nested too deep")
    except UnicodeEncodeError:
        return None, problem("parse", "this JSON holds half a surrogate pair, which is no character")
    except ValueError as fault:
        return None, problem("parse", f"this is not JSON: {fault}")
    if not isinstance(value, dict):
        return None, problem("invalid_request", "a frame is one JSON object; there are no batches")
    return _classify(value)


def _classify(value: dict[str, Any]) -> Request | Notification | Response | tuple[RequestId, Problem]:
    id_ = value.get("id")
    if isinstance(id_, bool) or not isinstance(id_, str | int | float | None):
        return None, problem("invalid_request", "id is a string, a number or null")
    if len(str(id_)) > MAX_ID_CHARS:
        return None, problem("invalid_request", f"id is at most {MAX_ID_CHARS} characters long")
    if value.get("jsonrpc") != "2.0":
        return id_, problem("invalid_request", 'jsonrpc must be "2.0"')
    if "method" not in value:
        if "id" in value and ("result" in value or "error" in value):
            return Response(id_, value.get("result"), value.get("error"))
        return id_, problem("invalid_request", "this has neither a method nor a result")
    method, params = value["method"], value.get("params")
    if not isinstance(method, str):
        return id_, problem("invalid_request", "method is a string")
    if not isinstance(params, dict | list | None):
        return id_, problem("invalid_request", "params is an object")
    return Request(id_, method, params) if "id" in value else Notification(method, params)


_encoder = json.JSONEncoder(separators=(",", ":"))


def encode(message: Mapping[str, Any]) -> str:
    """Write one frame: one line, and ASCII, so that its length in characters is that in bytes."""
    return _encoder.encode(message)


def request(id_: RequestId, method: str, params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}


def notification(method: str, params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def result(id_: RequestId, value: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "result": value}


def error(id_: RequestId, fault: Problem) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "error": fault.to_wire()}
