"""What a client is told of a session, as frozen classes, and how they are read from `session/update` frames.

Numbers are the session's (docs/protocol.md): `seq` is an event's, `owner` the turn's or exec's id. Reading never
raises, whatever came.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from attrs import field, frozen

from gateway_trio.core.acp import ours

__all__ = [
    "Away",
    "Back",
    "Command",
    "Commands",
    "Gap",
    "NewConversation",
    "Notice",
    "Option",
    "Other",
    "Permission",
    "PermissionOver",
    "Plan",
    "Skipped",
    "State",
    "Text",
    "Tool",
    "Update",
    "Usage",
    "permission",
    "read",
]

_Json = Mapping[str, Any]


@frozen
class Text:
    """Text of a message. What one has of it from `at` (in characters) on is replaced by `text`.

    `kind` is `answer`, `thought`, `output` (of a quick command) or `prompt` (what a user sent).
    """

    kind: str
    owner: str
    seq: int
    at: int
    text: str


@frozen
class State:
    """A change of state of a turn or an exec (`work`): `queued`, `running`, or an outcome.

    `key` is the prompt's, `position` its place in the queue (0 = next), `reason` a word, `message` a sentence;
    None where there is none. `data` has all that came.
    """

    work: str
    id: str
    seq: int
    state: str
    key: str | None = None
    reason: str | None = None
    position: int | None = None
    message: str | None = None
    data: _Json = field(factory=dict, eq=False, repr=False)

    @property
    def ends(self) -> bool:
        """Whether this is an outcome."""
        return self.state not in ("queued", "running")


@frozen
class Tool:
    """A tool call, or news of one; what is None has not changed. `data` is ACP's."""

    owner: str
    seq: int
    id: str
    title: str | None
    status: str | None
    data: _Json = field(eq=False, repr=False)


@frozen
class Plan:
    """The agent's plan, which replaces the one before. `entries` are ACP's."""

    owner: str
    seq: int
    entries: tuple[Any, ...]


@frozen
class NewConversation:
    """The agent sees nothing of what was before."""

    seq: int


@frozen
class Notice:
    """What the gateway itself answers: to a control command, or one that it does not know. It has no number."""

    text: str


@frozen
class Usage:
    """How much of the model's context is used."""

    used: int
    size: int


@frozen
class Command:
    """A command that may be used; `hint` says what follows its name, None for nothing."""

    name: str
    description: str
    hint: str | None


@frozen
class Commands:
    """All commands that may be used from now on."""

    commands: tuple[Command, ...]


@frozen
class Gap:
    """Events that this client does not get: numbers `start` to `upto`, both included; None where that is unknown.

    `reason` is why a connection that came back could not go on where it was (`too_old`, `too_new`, `epoch`); None
    where it is the gateway that does not keep so much.
    """

    start: int | None
    upto: int | None
    reason: str | None = None


@frozen
class Away:
    """The connection is lost, with this code (None for none), and is tried again after `seconds`."""

    code: int | None
    message: str
    seconds: float


@frozen
class Back:
    """The connection is there again, and goes on where it was unless a `Gap` follows."""


@frozen
class Skipped:
    """Updates that were dropped here because nobody took them."""

    count: int


@frozen
class Option:
    """A way to answer a permission request; `kind` is ACP's, as `allow_once`."""

    id: str
    name: str
    kind: str


@frozen
class Permission:
    """The agent asks whether it may. `id` names the question on this connection; `data` is ACP's."""

    id: Any
    title: str
    options: tuple[Option, ...]
    data: _Json = field(eq=False, repr=False)


@frozen
class PermissionOver:
    """That question is not open any more: somebody answered it, or the connection was lost."""

    id: Any


@frozen
class Other:
    """What this library has no class for, as it came; `seq` is 0 for what is no event."""

    data: _Json
    seq: int = 0
    owner: str = ""


Update = (
    Text | State | Tool | Plan | NewConversation | Notice | Usage | Commands | Gap | Away | Back | Skipped
    | Permission | PermissionOver | Other
)  # fmt: skip

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
