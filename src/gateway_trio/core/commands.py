"""What a prompt comes to: a built-in, an exec, text for the agent, or a refusal. Pure.

The same function decides whether a session is idle or busy and in every phase: whoever has a prompt calls
`decide`, carries out the verdict, and never looks at the text again. The order of its questions is a promise:

1. Is it a command? If not it is text for the agent, which the lane `turn` must admit.
2. Does the name exist? If not it is `Unknown`, in every state; it never reaches the agent.
3. May this role run what will really run, and each alias that led there? If not it is `forbidden`, in every
   state, spelling and indirection, before anything else could tell more about the command.
4. Are the lanes of all of these admitted? If not it is refused as `draining`; so is an alias whose
   target alone would run.
5. Are the words such as it takes? If not, `usage`.

What is admitted is asked of the table in `phases`, through `admits`; nothing here knows a phase.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from attrs import frozen

from gateway_trio.core.catalog import Catalog, CatalogFault, CatalogFaults, Found
from gateway_trio.core.kinds import (
    BUILT_INS,
    AliasCommand,
    BuiltIn,
    ExecCommand,
    QuickCommand,
    Role,
    fold,
    may,
)
from gateway_trio.core.phases import Lane
from gateway_trio.core.words import WordsError, check_words, split_command

__all__ = [  # with what a caller needs of `catalog`, `kinds` and `words`
    "BUILT_INS",
    "Admits",
    "AliasCommand",
    "BuiltIn",
    "Catalog",
    "CatalogFault",
    "CatalogFaults",
    "ExecCommand",
    "QuickCommand",
    "Refusal",
    "Role",
    "RunBuiltIn",
    "RunExec",
    "ToAgent",
    "Unknown",
    "Verdict",
    "check_words",
    "decide",
    "decide_exec",
    "fold",
    "may",
]

Admits = Callable[[Lane], bool]

_MOST_SHOWN = 200  # characters of a client's own text that a sentence repeats


@frozen
class ToAgent:
    """A prompt for the agent."""

    text: str


@frozen
class RunBuiltIn:
    """A built-in is to be carried out with `rest`; `via` is the alias that was typed, or None."""

    command: BuiltIn
    rest: str
    via: str | None = None


@frozen
class RunExec:
    """An exec is to be run with `words` as its arguments; `via` is the alias that was typed, or None."""

    command: ExecCommand
    words: tuple[str, ...]
    via: str | None = None


@frozen
class Unknown:
    """There is no such command. `near` are names like it that the asker may run."""

    name: str
    near: tuple[str, ...] = ()

    @property
    def notice(self) -> str:
        """What to tell the asker."""
        name = _shown(self.name)
        meant = f" Did you mean {' or '.join(f'/{near}' for near in self.near)}?" if self.near else ""
        return f"There is no command /{name}.{meant} /commands lists yours; //{name} goes to the agent as text."


@frozen
class Refusal:
    """Nothing was run and nothing was sent to the agent.

    `reason` is the wire's `data.reason`, `message` is for a person. `command` is the one that would have
    run, for the audit, and None for a text; `via` is the alias that was typed, or None.
    """

    reason: Literal["draining", "forbidden", "usage"]
    message: str
    command: BuiltIn | ExecCommand | None = None
    via: str | None = None


Verdict = ToAgent | RunBuiltIn | RunExec | Unknown | Refusal


def decide(text: str, *, catalog: Catalog, role: Role, admits: Admits) -> Verdict:
    """Return what is to be done with a prompt.

    Args:
        text: the prompt, as it came.
        catalog: the commands there are.
        role: of the principal who sent it.
        admits: whether work of a lane may begin now.

    """
    parts = split_command(text)
    if parts is None:
        return _text(text.removeprefix("/") if text.startswith("//") else text, admits)
    name, rest = parts
    found = catalog.find(name)
    if found is None:
        return Unknown(name, catalog.near(name, role))
    return _barred(found, found.rest(rest), role, admits) or _run(found, rest)


def decide_exec(
    name: str, args: Sequence[str], *, catalog: Catalog, role: Role, admits: Admits
) -> RunExec | Unknown | Refusal:
    """Return what is to be done with the request `_gateway-trio/exec`, as `decide` does with a prompt.

    Args:
        name: an exec command's or an alias's, without a slash.
        args: the words themselves; they are never split.
        catalog: the commands there are.
        role: of the principal who asks.
        admits: whether work of a lane may begin now.

    """
    found = catalog.find(name)
    if found is None:
        return Unknown(name, catalog.near(name, role))
    if refusal := _barred(found, found.rest(" ".join(args)), role, admits):
        return refusal
    if isinstance(found.target, BuiltIn):
        message = f"/{found.typed.name} is no exec command. Nothing was run; send it as a prompt."
        return _refusal("usage", message, found)
    try:
        words = found.target.take_list(args, before=found.words)
    except WordsError as bad:
        return _usage(found, bad)
    return RunExec(found.target, words, _via(found))


def _text(text: str, admits: Admits) -> ToAgent | Refusal:
    if admits(Lane.TURN):
        return ToAgent(text)
    if admits(Lane.CONTROL):
        message = (
            "The gateway is draining; nothing was sent to the agent. Send it again when the drain is over; "
            "/status and exec commands work now."
        )
        return Refusal("draining", message)
    return Refusal("draining", "The gateway is closing; nothing was sent to the agent.")


def _barred(found: Found, rest: str, role: Role, admits: Admits) -> Refusal | None:
    """Return the refusal of what this role may not run, or what may not run now."""
    typed, target = found.typed, found.target
    if not may(role, found.role):
        message = f"You may not run /{typed.name}: it takes the role {found.role.value}. Nothing was run."
        return _refusal("forbidden", message, found)
    if not admits(Lane.CONTROL):
        return _refusal("draining", "The gateway is closing; nothing was run.", found)
    instead = _shown(f"/{target.name} {rest}".rstrip())
    if not admits(target.lane):
        again = "Send it" if not found.aliases else f"It stands for {instead}: type that"
        message = (
            f"The gateway is draining, and /{typed.name} may need the agent; nothing was sent to it. "
            f"{again} when the drain is over; /status and exec commands work now."
        )
        return _refusal("draining", message, found)
    if not all(admits(alias.lane) for alias in found.aliases):
        message = f"The gateway is draining, and aliases do not run; nothing was run. Type {instead} instead."
        return _refusal("draining", message, found)
    return None


def _run(found: Found, rest: str) -> RunBuiltIn | RunExec | Refusal:
    rest = found.rest(rest)
    try:
        match found.target:
            case BuiltIn() as built_in:
                return RunBuiltIn(built_in, built_in.take(rest), _via(found))
            case command:
                return RunExec(command, command.take(rest), _via(found))
    except WordsError as bad:
        return _usage(found, bad)


def _usage(found: Found, bad: WordsError) -> Refusal:
    sentence = f"{str(bad)[:1].upper()}{str(bad)[1:]}"
    return _refusal("usage", f"{sentence}. Nothing was run. Usage: {found.target.usage}", found)


def _refusal(reason: Literal["draining", "forbidden", "usage"], message: str, found: Found) -> Refusal:
    return Refusal(reason, message, found.target, _via(found))


def _via(found: Found) -> str | None:
    return found.aliases[0].name if found.aliases else None


def _shown(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
