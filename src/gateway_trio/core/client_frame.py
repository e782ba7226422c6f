"""What a client sends: a frame that a gateway can read, or why there can be none.

A gateway cannot say whose answer it is where it cannot read a frame, so a client would wait for ever.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway_trio.core.jsonrpc import Problem, parse, problem

__all__ = ["client_frame"]

_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def client_frame(message: Mapping[str, Any]) -> str | Problem:
    """Return a message as one line of JSON, or, where a gateway could not read that, the refusal of it."""
    try:
        text = _encoder.encode(message)
        text.encode()
    except UnicodeEncodeError:
        return _refusal("it holds bytes that are not UTF-8, or half a surrogate pair, which is no character")
    except RecursionError:
        return _refusal("it is nested too deep")
    except ValueError as fault:
        return _refusal(f"it is no JSON: {fault}")
    match parse(text):
        case (_, Problem(message=why)):
            return _refusal(why)
    return text


def _refusal(why: str) -> Problem:
    return problem("invalid_params", f"this was not sent: {why}", admitted=False)
