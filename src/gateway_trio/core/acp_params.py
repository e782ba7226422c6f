"""What clients send in ACP, version 1: the parameters of each method, from JSON to a frozen class.

Source: agentclientprotocol.com, schema 1.19. Methods that start with `_gateway-trio/` are ours. Unknown fields are
ignored; a field that ACP marks as defaulting on error defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import cattrs
from attrs import field, fields, frozen
from cattrs.gen import make_dict_structure_fn, override

from gateway_trio.core.jsonrpc import Problem, problem

__all__ = [
    "PARAMS",
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
    "structure",
]

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
