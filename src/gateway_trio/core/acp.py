"""The Agent Client Protocol, version 1: what we send, as plain frames, and what is ours in it.

Source: agentclientprotocol.com, schema 1.19, and its text on the Streamable HTTP and WebSocket transport. What
is ours stands under `_meta["gateway-trio"]` and in methods that start with `_gateway-trio/`. What comes in is
in `acp_params`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from gateway_trio.core.jsonrpc import notification

__all__ = [
    "OURS",
    "PROTOCOL_VERSION",
    "TOKEN_METHOD",
    "chunk",
    "info",
    "initialized",
    "most_message_bytes",
    "ours",
    "update",
]

PROTOCOL_VERSION = 1
OURS = "gateway-trio"

#: The one way to authenticate; clients put the token into `_meta["gateway-trio"].token` of `authenticate`.
TOKEN_METHOD: Mapping[str, str] = MappingProxyType(
    {"id": "token", "name": "Token", "description": 'a token of this gateway, in _meta["gateway-trio"].token'}
)


def ours(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a client put under `_meta["gateway-trio"]`; empty if that is no object."""
    value = meta.get(OURS)
    return value if isinstance(value, dict) else {}


def initialized(version: str, auth_methods: Sequence[Mapping[str, Any]], max_message_bytes: int) -> dict[str, Any]:
    """The result of `initialize`. Its capabilities say what `acp_params.PARAMS` has beyond the baseline, and what
    is ours how long a frame of the client's may be.
    """
    return {
        "protocolVersion": PROTOCOL_VERSION,
        "agentCapabilities": {
            "loadSession": True,
            "promptCapabilities": {"image": False, "audio": False, "embeddedContext": True},
            "sessionCapabilities": {"resume": {}, "list": {}, "close": {}},
            "_meta": {OURS: {"version": version, "maxMessageBytes": max_message_bytes}},
        },
        "agentInfo": {"name": OURS, "title": OURS, "version": version},
        "authMethods": [dict(method) for method in auth_methods],
    }


def most_message_bytes(result: Mapping[str, Any], default: int) -> int:
    """Return how long a frame may be that the gateway takes, by its answer to `initialize`, or the default."""
    capabilities = result.get("agentCapabilities")
    meta = capabilities.get("_meta") if isinstance(capabilities, dict) else None
    value = ours(meta).get("maxMessageBytes") if isinstance(meta, dict) else None
    return value if type(value) is int else default


def with_meta(body: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    """Return it with our `meta` beside its own, of which null or what is no object counts as none."""
    own = body.get("_meta")
    return {**body, "_meta": {**(own if isinstance(own, dict) else {}), OURS: dict(meta)}}


def update(session_id: str, body: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A `session/update`. Our `meta` goes into the update, never beside it: the stock Python SDK would turn
    that into keyword arguments.
    """
    body = with_meta(body, meta) if meta else dict(body)
    return notification("session/update", {"sessionId": session_id, "update": body})


def chunk(
    session_id: str, kind: str, text: str, message_id: str, meta: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A piece of a message; `kind` is `user_message_chunk`, `agent_message_chunk` or `agent_thought_chunk`."""
    body = {"sessionUpdate": kind, "content": {"type": "text", "text": text}, "messageId": message_id}
    return update(session_id, body, meta)


def info(session_id: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    """A `session_info_update` that only carries what is ours."""
    return update(session_id, {"sessionUpdate": "session_info_update"}, meta)
