"""What stands in a session's log: its numbered entries, and what each of them can be.

Only text grows. An agent's answer, a thought and an exec's output are *messages*: one numbered entry each,
appended at its end while it is open. Every other entry is complete when it is written.
"""

from __future__ import annotations

import enum
from typing import Any

from attrs import define, field, frozen

from gateway_trio.core.permission import Answered, Asked
from gateway_trio.core.text import Text

__all__ = [
    "Body",
    "Change",
    "Entry",
    "Kind",
    "Message",
    "Prompt",
    "Update",
]

#: What an entry is taken to cost beside its text, for `keep_bytes`.
_ENTRY_BYTES = 300


class Kind(enum.Enum):
    """What a message is. The agent sees `ANSWER` in its history, and nothing else of these."""

    ANSWER = "answer"
    THOUGHT = "thought"
    OUTPUT = "output"


@frozen
class Prompt:
    """What a user sent. `sender` names the connection, to which it is not echoed live; `lane` is turn or exec.

    `replaces` is the turn that a `/retry` runs again.
    """

    text: str
    lane: str
    blocks: tuple[Any, ...] = ()
    sender: str = ""
    replaces: str | None = None


@frozen
class Message:
    """A text that grows; the text itself is the entry's."""

    kind: Kind


@frozen
class Change:
    """A change of state of a turn or an exec. `ends` says that nothing of this owner comes after it."""

    work: str  #: "turn" or "exec"
    id: str
    state: str
    seq: int  #: the number of the prompt's entry
    ends: bool
    key: str | None = None
    reason: str | None = None
    position: int | None = None  #: in the queue, 0 = next; only for `queued`
    facts: Any = None  #: what an exec's end reports
    stop_reason: str | None = None  #: what a completed turn answers


@frozen
class Update:
    """A tool call, an update of one, a plan: complete, in the form in which ACP has it."""

    data: Any


Body = Prompt | Message | Change | Update | Asked | Answered


@define(eq=False)
class Entry:
    """One number in the log. `owner` is the turn or the exec it belongs to; `admin` hides it from users.

    `unsaved` says that the store has less of it than the log, which therefore does not forget it.
    """

    number: int
    owner: str
    body: Body
    admin: bool = False
    open: bool = False
    unsaved: bool = False
    text: Text = field(factory=Text)
    _body_bytes: int = field(init=False)

    @_body_bytes.default
    def _(self) -> int:
        match self.body:
            case Prompt(text, _, blocks):
                return _ENTRY_BYTES + len(text) + len(repr(blocks))
            case Update(data):
                return _ENTRY_BYTES + len(repr(data))
            case Asked(_, tool, options):
                return _ENTRY_BYTES + len(repr(tool)) + len(repr(options))
        return _ENTRY_BYTES

    @property
    def bytes(self) -> int:
        """About what it takes in memory."""
        return self._body_bytes + self.text.bytes
