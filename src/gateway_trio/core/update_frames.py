"""Frames of ACP as the updates that a client is told. Reading never raises, whatever came."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from gateway_trio.core.acp import ours
from gateway_trio.core.updates import (
    Command,
    Commands,
    Gap,
    NewConversation,
    Notice,
    Option,
    Other,
    Permission,
    Plan,
    State,
    Text,
    Tool,
    Update,
    Usage,
)

__all__ = ["permission", "read"]

_Json = Mapping[str, Any]

_CHUNKS: Mapping[str, str] = MappingProxyType(
    {"agent_message_chunk": "answer", "agent_thought_chunk": "thought", "user_message_chunk": "prompt"}
)


def read(data: _Json) -> Update:
    """Return the update of a `session/update` frame, as it stands there: a chunk as `Text` (or `Notice`)."""
    meta = ours(_object(data.get("_meta")))
    seq, owner = _number(meta.get("seq")), _owner(meta)
    kind = _text(data.get("sessionUpdate")) or ""
    if kind in _CHUNKS:
        text = str(_object(data.get("content")).get("text", ""))
        if seq is None:
            return Notice(text)
        said = "output" if "execId" in meta and kind == "agent_message_chunk" else _CHUNKS[kind]
        return Text(said, owner, seq, _number(meta.get("at")) or 0, text)
    match kind:
        case "tool_call" | "tool_call_update":
            id_, title, status = str(data.get("toolCallId", "")), data.get("title"), data.get("status")
            return Tool(owner, seq or 0, id_, _text(title), _text(status), data)
        case "plan":
            return Plan(owner, seq or 0, tuple(_list(data.get("entries"))))
        case "usage_update":
            return Usage(_number(data.get("used")) or 0, _number(data.get("size")) or 0)
        case "available_commands_update":
            return Commands(tuple(map(_command, _list(data.get("availableCommands")))))
        case "session_info_update":
            return _info(data, meta, seq or 0)
    return Other(data, seq or 0, owner)


def _info(data: _Json, meta: _Json, seq: int) -> Update:
    for work in ("turn", "exec"):
        if work in meta:
            return _state(work, seq, _object(meta[work]))
    if "lost" in meta:
        lost = _object(meta["lost"])
        return Gap(_number(lost.get("from")), _number(lost.get("to")))
    return NewConversation(seq) if meta.get("newConversation") is True else Other(data, seq, _owner(meta))


def _state(work: str, seq: int, told: _Json) -> State:
    return State(
        work=work,
        id=str(told.get("id", "")),
        seq=seq,
        state=str(told.get("state", "")),
        key=_text(told.get("key")),
        reason=_text(told.get("reason")),
        position=_number(told.get("position")),
        message=_text(told.get("message")),
        data=told,
    )


def _command(about: Any) -> Command:
    about = _object(about)
    hint = _object(about.get("input")).get("hint")
    return Command(str(about.get("name", "")), str(about.get("description", "")), _text(hint))


def permission(id_: Any, params: _Json) -> Permission:
    """Return a `session/request_permission`."""
    tool = _object(params.get("toolCall"))
    options = tuple(
        Option(str(o.get("optionId", "")), str(o.get("name", "")), str(o.get("kind", "")))
        for o in map(_object, _list(params.get("options")))
    )
    title = _text(tool.get("title")) or str(tool.get("toolCallId", ""))
    return Permission(id_, title, options, params)


def _owner(meta: _Json) -> str:
    return str(meta.get("turnId") or meta.get("execId") or "")


def _object(value: Any) -> _Json:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> int | None:
    return value if type(value) is int else None
