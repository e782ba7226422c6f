"""The kinds of commands: who may run each, in which lane, and what words it takes. Pure tables.

A *built-in* is a row of `BUILT_INS`. An *exec* runs a shell command, an *alias* stands for another command;
both come from the config. Every kind has a `name`, a `lane`, a `role`, a `description`, a `usage` to show,
and a `hint`, the part of the usage after the name. Names are compared without case, and `_` is the same as
`-`.
"""

import enum
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Literal

from attrs import field, frozen

from gateway_trio.core.fields import seconds
from gateway_trio.core.phases import Lane
from gateway_trio.core.words import WordsError, check_words, split_words

__all__ = [
    "BUILT_INS",
    "AliasCommand",
    "BuiltIn",
    "ExecCommand",
    "QuickCommand",
    "Role",
    "Takes",
    "fold",
    "join",
    "may",
]


class Role(enum.Enum):
    """What a principal may do. The values are the words of the config."""

    USER = "user"
    ADMIN = "admin"


def may(role: Role, needed: Role) -> bool:
    """Whether `role` may do what needs `needed`: an admin may do everything."""
    return role is Role.ADMIN or needed is Role.USER


def fold(name: str) -> str:
    """Return the form in which names are compared. What is not ASCII stays, and so is like no name."""
    return name.lower().replace("_", "-") if name.isascii() else name


# --- built-ins ------------------------------------------------------------------------------------

_MOST_WHY = 1000  # characters; the words are shown to everyone


class Takes(enum.Enum):
    """What a built-in takes after its name. The values are what its usage shows."""

    NOTHING = ""
    NUMBER = "[n]"
    ID = "ID"
    MAYBE_ID = "[ID]"
    TEXT = "TEXT"
    WHY = "[WHY]"
    REASON = "[REASON]"

    def accepts(self, rest: str) -> bool:
        """Whether `rest`, without white space around it, is what this stands for."""
        match self:
            case Takes.NOTHING:
                return rest == ""
            case Takes.NUMBER:
                return re.fullmatch(r"|[1-9][0-9]{0,8}", rest) is not None
            case Takes.ID:
                return len(rest.split()) == 1
            case Takes.MAYBE_ID:
                return len(rest.split()) <= 1
            case Takes.TEXT:
                return rest != ""
            case Takes.WHY:
                return len(rest) <= _MOST_WHY
            case _:  # REASON: one that can be taken back; empty: the operator's
                return rest in {"", "operator", "backend", "restart"}


@frozen
class BuiltIn:
    """A command of the gateway's own."""

    name: str
    lane: Lane
    role: Role
    takes: Takes
    description: str

    @property
    def hint(self) -> str:
        return self.takes.value

    @property
    def usage(self) -> str:
        return f"/{self.name} {self.hint}".rstrip()

    def take(self, rest: str) -> str:
        """Return what the command is to work with. Raises `WordsError`.

        A text stays as it is; all else loses the white space around it.
        """
        stripped = rest.strip()
        if not self.takes.accepts(stripped):
            raise WordsError(f"/{self.name} does not take that")
        return rest if self.takes is Takes.TEXT else stripped


BUILT_INS: Mapping[str, BuiltIn] = MappingProxyType(
    {
        name: BuiltIn(name, lane, role, takes, description)
        for name, lane, role, takes, description in (
            ("help", Lane.CONTROL, Role.USER, Takes.NOTHING, "what you can do here"),
            ("commands", Lane.CONTROL, Role.USER, Takes.NOTHING, "the commands that you may run"),
            ("status", Lane.CONTROL, Role.USER, Takes.NOTHING, "phase, reasons, turns and execs"),
            ("whoami", Lane.CONTROL, Role.USER, Takes.NOTHING, "your name and role"),
            ("history", Lane.CONTROL, Role.USER, Takes.NUMBER, "this session's last prompts and answers"),
            ("ps", Lane.CONTROL, Role.USER, Takes.NOTHING, "the execs that run or wait"),
            ("stop", Lane.CONTROL, Role.USER, Takes.NOTHING, "end this session's turn and its queue"),
            ("kill", Lane.CONTROL, Role.USER, Takes.ID, "end an exec of yours; any, for an admin"),
            ("allow", Lane.CONTROL, Role.USER, Takes.MAYBE_ID, "allow what the agent asks for"),
            ("deny", Lane.CONTROL, Role.USER, Takes.MAYBE_ID, "deny what the agent asks for"),
            ("drain", Lane.CONTROL, Role.ADMIN, Takes.WHY, "let no new turn start"),
            ("undrain", Lane.CONTROL, Role.ADMIN, Takes.REASON, "let turns start again"),
            ("restart", Lane.CONTROL, Role.ADMIN, Takes.NOTHING, "drain, then restart the gateway"),
            ("reload", Lane.CONTROL, Role.ADMIN, Takes.NOTHING, "read the config again: commands, tokens, limits"),
            ("queue", Lane.TURN, Role.USER, Takes.TEXT, "send a prompt to run after the present turn"),
            ("interrupt", Lane.TURN, Role.USER, Takes.TEXT, "send a prompt in place of the present turn"),
            ("retry", Lane.TURN, Role.USER, Takes.NOTHING, "run the last prompt again, or the interrupted one"),
            ("new", Lane.TURN, Role.USER, Takes.NOTHING, "begin with an empty history"),
        )
    }
)


# --- quick commands -------------------------------------------------------------------------------


def join(first: str, rest: str) -> str:
    """Return an alias's words and the words after it as one text."""
    return f"{first} {rest}" if first and rest else first or rest


def _frozen_copy(env: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType({**env})


@frozen
class ExecCommand:
    """A shell command that runs with no agent. One of `command`, for `sh -c`, and `argv` is set.

    `args` says what may follow the name. `none`: nothing. `text`: what follows the name and one blank, as
    it is, in "$1". `words`: what follows, taken apart as a shell would, in "$1", "$2" and so on.
    `background` says what becomes of the processes that a command left running when it ended by itself.
    `env` is added to the few names that every command gets. `cwd` of None is the home of the gateway's
    user.
    """

    lane: ClassVar[Lane] = Lane.EXEC

    name: str
    command: str | None = None
    argv: tuple[str, ...] | None = None
    description: str = ""
    role: Role = Role.ADMIN  # it is a shell
    args: Literal["none", "text", "words"] = "none"
    timeout_seconds: float = seconds(30)  # from the spawn
    background: Literal["keep", "kill"] = "keep"
    env: Mapping[str, str] = field(default=MappingProxyType({}), converter=_frozen_copy, hash=False)
    cwd: str | None = None

    @property
    def hint(self) -> str:
        return {"none": "", "text": "[TEXT]", "words": "[WORD …]"}[self.args]

    @property
    def usage(self) -> str:
        return f"/{self.name} {self.hint}".rstrip()

    def take(self, rest: str) -> tuple[str, ...]:
        """Return the words of `rest`, the text after the name and one blank. Raises `WordsError`."""
        match self.args:
            case "none":
                return self._checked([rest] if rest.strip() else [])
            case "text":
                return self._checked([rest] if rest else [])
            case _:
                return self._checked(split_words(rest))

    def take_list(self, args: Sequence[str], *, before: str = "") -> tuple[str, ...]:
        """Return the words that a list of them comes to, each as it is. Raises `WordsError`.

        Args:
            args: the words.
            before: the text that aliases put before them.

        """
        if self.args == "text" and len(args) == 1:
            return self._checked([join(before, args[0])])
        return self._checked([*self.take(before), *args])

    def _checked(self, words: Sequence[str]) -> tuple[str, ...]:
        most = {"none": 0, "text": 1}.get(self.args)
        if most is not None and len(words) > most:
            raise WordsError(f"/{self.name} takes {'one text' if most else 'nothing'} after its name")
        if wrong := check_words(words):
            raise WordsError(wrong)
        return tuple(words)


@frozen
class AliasCommand:
    """A name that stands for another command, which may carry words: the user's are appended."""

    lane: ClassVar[Lane] = Lane.ALIAS

    name: str
    target: str  #: as written, with its `/`
    description: str = ""
    role: Role = Role.USER  # the target's role counts as well

    @property
    def hint(self) -> str:
        return ""  # the target's, which only the catalog knows

    @property
    def usage(self) -> str:
        return f"/{self.name}"


QuickCommand = ExecCommand | AliasCommand
