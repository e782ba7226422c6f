"""Permission requests: what an agent may ask, and what counts as an answer. Pure.

A request is two events of its session: `Asked`, which is open until `Answered` follows it. It ends once, in one
of three ways: an option was `selected`, it `lapsed` because nobody was there for too long, or it was `cancelled`
with its turn. Whatever else a client answers is no answer: an error, the outcome `cancelled`, an option that was
not offered. So a client that cannot ask its user, or loses its socket, neither grants nor denies anything.

Source of the words: the Agent Client Protocol, "Requesting Permission".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from attrs import field, frozen
from attrs.validators import in_

from gateway_trio.core.text import short

__all__ = [
    "ALLOW_OR_REJECT",
    "CANCELLED",
    "LAPSED",
    "MOST_OPTIONS",
    "Answered",
    "Asked",
    "Decision",
    "OptionKind",
    "PermissionOption",
    "check_options",
    "chosen",
    "find",
    "preferred",
]

OptionKind = Literal["allow_once", "allow_always", "reject_once", "reject_always"]

#: Of one request. A person reads them all.
MOST_OPTIONS = 16
_ID_CHARS = 128
_SHOWN = 60  #: characters of a title in a list


@frozen
class PermissionOption:
    """What may be answered: `id` is the agent's own, `name` is shown, `kind` is ACP's word for what it means."""

    id: str
    name: str
    kind: OptionKind = field(validator=in_(get_args(OptionKind)))


#: What is offered where the agent does not say.
ALLOW_OR_REJECT = (
    PermissionOption("allow", "Allow", "allow_once"),
    PermissionOption("reject", "Reject", "reject_once"),
)


@frozen
class Decision:
    """How a request ended. `option` and `by`, who chose it, are None unless it was `selected`."""

    outcome: Literal["selected", "lapsed", "cancelled"]
    option: PermissionOption | None = None
    by: str | None = None

    @property
    def allowed(self) -> bool:
        """Whether somebody allowed it, once or always. Nothing else is a yes."""
        return self.option is not None and self.option.kind.startswith("allow")


CANCELLED = Decision("cancelled")
LAPSED = Decision("lapsed")


@frozen
class Asked:
    """An event: the agent asks. `tool` is the tool call as ACP has it, `id` is unique in its session."""

    id: str
    tool: Mapping[str, Any]
    options: tuple[PermissionOption, ...]

    @property
    def title(self) -> str:
        """What it is about, for a person, on one line."""
        return short(str(self.tool.get("title", "")), _SHOWN) or "a tool"


@frozen
class Answered:
    """An event: the request with this id has ended."""

    id: str
    decision: Decision

    @property
    def words(self) -> str:
        """What to tell people."""
        option, by = self.decision.option, self.decision.by
        if option is None:
            return f"{self.id} {_NOT_ANSWERED[self.decision.outcome]}"
        return f"{self.id} was answered by {by}: {short(str(option.name), _SHOWN)}"


_NOT_ANSWERED = {
    "lapsed": "lapsed: nobody was here to answer it",
    "cancelled": "is not asked any more",
}


def check_options(options: Sequence[PermissionOption]) -> None:
    """Raise ValueError for options among which nobody could choose, TypeError for what is no option.

    An option is none if its id or name is no text. Not checked as it is made: a log may hold one from before.
    """
    if not 0 < len(options) <= MOST_OPTIONS:
        raise ValueError(f"a permission request has 1 to {MOST_OPTIONS} options, not {len(options)}")
    for option in options:
        if not isinstance(option, PermissionOption):
            raise TypeError(f"an option is a PermissionOption, not {type(option).__name__}")
        if not (isinstance(option.id, str) and isinstance(option.name, str)):
            kinds = f"{type(option.id).__name__} and {type(option.name).__name__}"
            raise TypeError(f"the id and the name of an option are texts, not {kinds}")
    ids = [option.id for option in options]
    if len(set(ids)) < len(ids):
        raise ValueError(f"two options of a permission request have the same id: {ids}")
    if not all(0 < len(id_) <= _ID_CHARS for id_ in ids):
        raise ValueError(f"the id of an option has 1 to {_ID_CHARS} characters")


def chosen(answer: Any, options: Sequence[PermissionOption]) -> PermissionOption | None:
    """Return the option that a client's answer selects; None for anything that is no answer.

    `answer` is the `result` of `session/request_permission`, whatever the client sent as that.
    """
    match answer:
        case {"outcome": {"outcome": "selected", "optionId": str(id_)}}:
            return next((option for option in options if option.id == id_), None)
    return None


def preferred(options: Sequence[PermissionOption], *, allow: bool) -> PermissionOption | None:
    """Return the option that `/allow` or `/deny` means: for once if there is one, else for always, else None."""
    verb = "allow" if allow else "reject"
    by_kind: dict[str, PermissionOption] = {option.kind: option for option in reversed(options)}
    return by_kind.get(f"{verb}_once") or by_kind.get(f"{verb}_always")


def find(unanswered: Mapping[str, Asked], id_: str) -> Asked | str:
    """Return the request that is meant, or a sentence that says why none is.

    Args:
        unanswered: the open requests of the session, by id.
        id_: what was typed; empty where it was left out, which will do if exactly one is open.

    """
    if not unanswered:
        return "Nothing asks for permission in this session."
    listed = ", ".join(f"{asked.id} ({asked.title})" for asked in unanswered.values())
    if id_:
        return unanswered.get(id_.lower()) or f"There is no open request {short(id_, _SHOWN)}; open: {listed}."
    if len(unanswered) > 1:
        return f"Say which one: {listed}."
    return next(iter(unanswered.values()))
