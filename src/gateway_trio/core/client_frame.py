"""What a client sends: a frame that a gateway can read, or why there can be none.

A gateway cannot say whose answer it is where it cannot read a frame, so a client would wait for ever; and at one
that is too long it closes the connection, with whatever else waits on that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gateway_trio.core.jsonrpc import Problem, parse, problem

__all__ = ["MOST_BYTES", "client_frame"]

#: What a gateway takes that does not say otherwise: the default of `server.max_message_bytes`.
MOST_BYTES = 1024 * 1024

_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def client_frame(message: Mapping[str, Any], most_bytes: int = MOST_BYTES) -> str | Problem:
    """Return a message as one line of JSON, or, where a gateway would not take that, the refusal of it.

    Args:
        message: what is to be sent.
        most_bytes: of UTF-8, that the gateway takes.

    """
    try:
        text = _encoder.encode(message)
        size = len(text.encode())
    except UnicodeEncodeError:
        return _refusal("it holds bytes that are not UTF-8, or half a surrogate pair, which is no character")
    except RecursionError:
        return _refusal("it is nested too deep")
    except ValueError as fault:
        return _refusal(f"it is no JSON: {fault}")
    if size > most_bytes:
        return _refusal(f"it has {size} bytes, and the gateway takes at most {most_bytes}")
    match parse(text):
        case (_, Problem(message=why)):
            return _refusal(why)
    return text


def _refusal(why: str) -> Problem:
    return problem("invalid_params", f"this was not sent: {why}", admitted=False)
