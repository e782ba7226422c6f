"""The Agent Client Protocol, version 1, as far as we speak it: what comes in as frozen classes, what goes out
as plain frames.

Source: agentclientprotocol.com, schema 1.19, and its text on the Streamable HTTP and WebSocket transport. What
is ours stands under `_meta["gateway-trio"]` and in methods that start with `_gateway-trio/`. Unknown fields
are ignored; a field that ACP marks as defaulting on error defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import cattrs
from attrs import field, fields, frozen
from cattrs.gen import make_dict_structure_fn, override

from gateway_trio.core.jsonrpc import Problem, notification, problem

__all__ = [
    "OURS",
    "PARAMS",
    "PROTOCOL_VERSION",
    "TOKEN_METHOD",
    "Authenticate",
    "Cancel",
    "CancelRequest",
    "CloseSession",
    "DrainAsk",
    "ExecAsk",
    "Initialize",
    "KillAsk",
    "ListSessions",
    "LoadSession",
    "NewSession",
    "Nothing",
    "PromptAsk",
    "ResumeSession",
    "UndrainAsk",
    "chunk",
    "info",
    "initialized",
    "ours",
    "structure",
    "update",
]

PROTOCOL_VERSION = 1
OURS = "gateway-trio"

#: The one way to authenticate; clients put the token into `_meta["gateway-trio"].token` of `authenticate`.
TOKEN_METHOD: Mapping[str, str] = MappingProxyType(
    {"id": "token", "name": "Token", "description": 'a token of this gateway, in _meta["gateway-trio"].token'}
)

_META = {"rename": "_meta", "lenient": True}
_Json = Mapping[str, Any]


def _meta() -> Any:
    return field(factory=dict, metadata=_META)


@frozen
class Initialize:
    protocol_version: int
    client_capabilities: _Json = field(factory=dict, metadata={"lenient": True})


@frozen
class Authenticate:
    method_id: str
    meta: _Json = _meta()


@frozen
class NewSession:
    cwd: str
    meta: _Json = _meta()


@frozen
class LoadSession:
    session_id: str
    cwd: str
    meta: _Json = _meta()


@frozen
class ResumeSession:
    session_id: str
    cwd: str
    meta: _Json = _meta()


@frozen
class CloseSession:
    session_id: str


@frozen
class ListSessions:
    cwd: str | None = None
    cursor: str | None = None


@frozen
class PromptAsk:
    session_id: str
    prompt: list[dict[str, Any]]
    meta: _Json = _meta()


@frozen
class Cancel:
    session_id: str


@frozen
class CancelRequest:
    request_id: str | int | float | None


@frozen
class ExecAsk:
    name: str
    args: list[str] = field(factory=list)


@frozen
class KillAsk:
    id: str


@frozen
class DrainAsk:
    why: str = ""


@frozen
class UndrainAsk:
    reason: str = "operator"


@frozen
class Nothing:
    """Of a method that takes no parameters."""


#: Every method that a client may call, as a request or (the last two) as a notification.
PARAMS: Mapping[str, type] = MappingProxyType(
    {
        "initialize": Initialize,
        "authenticate": Authenticate,
        "session/new": NewSession,
        "session/load": LoadSession,
        "session/resume": ResumeSession,
        "session/list": ListSessions,
        "session/close": CloseSession,
        "session/prompt": PromptAsk,
        "_gateway-trio/status": Nothing,
        "_gateway-trio/exec": ExecAsk,
        "_gateway-trio/kill": KillAsk,
        "_gateway-trio/drain": DrainAsk,
        "_gateway-trio/undrain": UndrainAsk,
        "_gateway-trio/restart": Nothing,
        "session/cancel": Cancel,
        "$/cancel_request": CancelRequest,
    }
)

_converter = cattrs.Converter(detailed_validation=True)


def _exactly(type_: type) -> Callable[[Any, Any], Any]:
    def hook(value: Any, _: Any) -> Any:
        if type(value) is not type_:
            raise TypeError(f"expected {_WORDS[type_]}, not {_WORDS.get(type(value), type(value).__name__)}")
        return value

    return hook


_WORDS = {
    str: "a string", int: "a whole number", float: "a number", bool: "true or false", dict: "an object",
    list: "a list", type(None): "null",
}  # fmt: skip


def _list_of(item: type) -> Callable[[Any, Any], Any]:
    def hook(value: Any, _: Any) -> Any:
        return [_exactly(item)(v, _) for v in _exactly(list)(value, _)]

    return hook


def _leniently(value: Any, _: Any) -> Any:
    return value if isinstance(value, dict) else {}


def _request_id(value: Any, _: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        raise TypeError("expected a string, a number or null")
    return value


def _optional_text(value: Any, _: Any) -> Any:
    return None if value is None else _exactly(str)(value, _)


_HOOKS: Mapping[str, Callable[[Any, Any], Any]] = {
    "str": _exactly(str), "int": _exactly(int), "str | None": _optional_text,
    "list[str]": _list_of(str), "list[dict[str, Any]]": _list_of(dict),
    "str | int | float | None": _request_id,
}  # fmt: skip


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(map(str.capitalize, rest))


def _structure_fn(cls: type) -> Callable[[Any, Any], Any]:
    overrides = {
        a.name: override(
            rename=a.metadata.get("rename", _camel(a.name)),
            struct_hook=_leniently if a.metadata.get("lenient") else _HOOKS[str(a.type)],
        )
        for a in fields(cls)
    }
    return make_dict_structure_fn(cls, _converter, _cattrs_forbid_extra_keys=False, **overrides)  # type: ignore[arg-type]


_STRUCTURE = {cls: _structure_fn(cls) for cls in PARAMS.values()}
_T = TypeVar("_T")


def structure(cls: type[_T], params: Any) -> _T | Problem:
    """Return the parameters as `cls`, or the `invalid_params` problem that names each fault."""
    if not isinstance(params, dict):
        if params is not None:
            return problem("invalid_params", "params is an object")
        params = {}
    try:
        return _STRUCTURE[cls](params, cls)  # type: ignore[no-any-return]
    except Exception as faults:  # noqa: BLE001 - cattrs raises groups of whatever hooks raise
        lines = cattrs.transform_error(faults, path="params", format_exception=_say)
        return problem("invalid_params", "; ".join(_on_the_wire(line) for line in lines))


def _say(fault: BaseException, type_: type | None) -> str:  # noqa: ARG001
    return "missing" if isinstance(fault, KeyError) else str(fault)


def _on_the_wire(line: str) -> str:
    """Turn cattrs' «what @ params.session_id» into «params.sessionId: what»."""
    what, _, path = line.rpartition(" @ ")
    return f"{_camel(path)}: {what}"


def ours(meta: _Json) -> _Json:
    """Return what a client put under `_meta["gateway-trio"]`; empty if that is no object."""
    value = meta.get(OURS)
    return value if isinstance(value, dict) else {}


# --- what we send ---------------------------------------------------------------------------------


def initialized(version: str, auth_methods: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The result of `initialize`. Its capabilities say what `PARAMS` has beyond the baseline."""
    return {
        "protocolVersion": PROTOCOL_VERSION,
        "agentCapabilities": {
            "loadSession": True,
            "promptCapabilities": {"image": False, "audio": False, "embeddedContext": True},
            "sessionCapabilities": {"resume": {}, "list": {}, "close": {}},
            "_meta": {OURS: {"version": version}},
        },
        "agentInfo": {"name": OURS, "title": OURS, "version": version},
        "authMethods": [dict(method) for method in auth_methods],
    }


def update(session_id: str, body: Mapping[str, Any], meta: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A `session/update`. Our `meta` goes into the update, never beside it: the stock Python SDK would turn
    that into keyword arguments.
    """
    body = dict(body)
    if meta:
        body["_meta"] = {**body.get("_meta", {}), OURS: dict(meta)}
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
