"""What a client is told of a session, as frozen classes.

Numbers are the session's (docs/protocol.md): `seq` is an event's, `owner` the turn's or exec's id.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

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
