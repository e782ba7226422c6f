"""Which commands there are, and what an alias stands for. Pure tables.

No two commands may have one name. `Catalog.build` follows each alias to the command that will really run,
once, when the config is loaded. What it gives for a name is a `Found`: that command, the aliases on the
way, and the words that they add. Whether something may run is asked of all of them, so an alias can narrow
who may run a command, and never widen it.

An alias's words stand before the user's: with `n = "/note buy"`, `/n milk` is `/note buy milk`. Through two
aliases, those of the one nearest to the command come first.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Self

from attrs import field, frozen

from gateway_trio.core.kinds import (
    BUILT_INS,
    AliasCommand,
    BuiltIn,
    ExecCommand,
    QuickCommand,
    Role,
    fold,
    join,
    may,
)
from gateway_trio.core.words import WordsError, split_command

__all__ = ["Catalog", "CatalogFault", "CatalogFaults", "Found", "find_faults"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_LONGEST_NEAR = 64  # characters; a longer name is near to nothing, and would take long to compare
_EXEC_ID = "GATEWAY_TRIO_EXEC_ID"  # what the runner sets, and finds its processes by

Named = Mapping[str, BuiltIn | QuickCommand | None]  # None: it is there, but could not be read


@frozen
class Found:
    """What a name comes to: the command that will run, and how one got there from the name typed."""

    target: BuiltIn | ExecCommand
    aliases: tuple[AliasCommand, ...] = ()  #: the one typed first
    words: str = ""  #: what the aliases put before the user's words

    @property
    def typed(self) -> BuiltIn | QuickCommand:
        """The command whose name was typed."""
        return self.aliases[0] if self.aliases else self.target

    @property
    def role(self) -> Role:
        """The role that it takes: the highest of the target's and the aliases'."""
        every = {command.role for command in (self.target, *self.aliases)}
        return Role.ADMIN if Role.ADMIN in every else Role.USER

    def rest(self, rest: str) -> str:
        """Return the text after the target's name, from the one after the typed name."""
        return join(self.words, rest)


@frozen
class CatalogFault:
    """What is wrong with a quick command. `key` is the one of its table, or empty for the whole."""

    name: str
    key: str
    message: str


class CatalogFaults(ValueError):
    """The quick commands make no catalog."""

    def __init__(self, faults: tuple[CatalogFault, ...]) -> None:
        super().__init__("; ".join(f"{fault.name}: {fault.message}" for fault in faults))
        self.faults = faults


@frozen
class Catalog:
    """Every command by its folded name, each alias followed to its end: the built-ins, then the config's."""

    found: Mapping[str, Found] = field(hash=False)

    @classmethod
    def build(cls, commands: Iterable[QuickCommand] = ()) -> Self:
        """Return the catalog of the built-ins and these commands. Raises `CatalogFaults` with all of them."""
        commands = tuple(commands)
        if faults := find_faults(commands):
            raise CatalogFaults(faults)
        named: Named = {**BUILT_INS, **{fold(command.name): command for command in commands}}
        ends = {key: _follow(command, named) for key, command in named.items()}
        return cls(MappingProxyType({key: end for key, end in ends.items() if isinstance(end, Found)}))

    def find(self, name: str) -> Found | None:
        """Return what a name comes to in any of its spellings, or None."""
        return self.found.get(fold(name))

    def hint(self, command: BuiltIn | QuickCommand) -> str:
        """Return what may follow a command's name, for ACP's `input.hint`: an alias's is its target's."""
        return self.found[fold(command.name)].target.hint

    def visible(self, role: Role) -> tuple[BuiltIn | QuickCommand, ...]:
        """Return the commands that a role may run."""
        return tuple(found.typed for found in self.found.values() if may(role, found.role))

    def near(self, name: str, role: Role) -> tuple[str, ...]:
        """Return up to three names like this one, of commands that the role may run, the nearest first."""
        names = {fold(command.name): command.name for command in self.visible(role)}
        return tuple(names[key] for key in _nearest(name, names))


def _nearest(name: str, keys: Iterable[str], most: int = 3) -> list[str]:
    return [] if len(name) > _LONGEST_NEAR else difflib.get_close_matches(fold(name), list(keys), n=most)


# --- what is wrong ----------------------------------------------------------------------------------


def find_faults(commands: Iterable[QuickCommand], unread: Iterable[str] = ()) -> tuple[CatalogFault, ...]:
    """Return everything that keeps quick commands from making a catalog.

    Args:
        commands: the quick commands.
        unread: names of further ones that are at fault in themselves. They clash with others of their name,
            and an alias to one of them is not reported.

    """
    listed: list[tuple[str, QuickCommand | None]] = [(command.name, command) for command in commands]
    listed += [(name, None) for name in unread]
    named: dict[str, BuiltIn | QuickCommand | None] = {**BUILT_INS}
    names: dict[str, str] = {}
    faults: list[CatalogFault] = []
    for name, command in listed:
        key = fold(name)
        if not _NAME.fullmatch(name):
            faults.append(CatalogFault(name, "", "a name is made of a-z 0-9 _ - and begins with a-z or 0-9"))
        elif key in BUILT_INS:
            faults.append(CatalogFault(name, "", f"/{key} is built in"))
        elif key in named:
            faults.append(CatalogFault(name, "", f"is the same name as {names[key]}"))
        else:
            named[key], names[key] = command, name
    for name, command in listed:
        match command:
            case AliasCommand():
                faults += [CatalogFault(name, "target", message) for message in _alias_faults(command, named)]
            case ExecCommand():
                faults += [CatalogFault(name, key, message) for key, message in _exec_faults(command)]
    return tuple(faults)


def _alias_faults(alias: AliasCommand, named: Named) -> Iterator[str]:
    if "{args}" in alias.target:
        yield "{args} is not replaced: what is typed after the name is appended"
        return
    end = _follow(alias, named)
    if isinstance(end, str):
        yield end
    elif end is not None and end.words:
        try:
            end.target.take(end.words)
        except WordsError as bad:
            yield f"{bad}; its usage is {end.target.usage}"


def _follow(command: BuiltIn | QuickCommand | None, named: Named) -> Found | str | None:
    """Return what a command comes to; or what is wrong with its target; or None if that cannot be told."""
    chain: list[AliasCommand] = []
    words = ""
    while isinstance(command, AliasCommand):
        if command in chain:
            return f"leads in a circle: {' → '.join(f'/{alias.name}' for alias in (*chain, command))}"
        chain.append(command)
        name, rest = split_command(command.target) or ("", "")
        if not name:
            return f'must be a command, such as "/help", not {command.target[:40]!r}'
        if fold(name) not in named:
            near = "".join(f"; did you mean /{key}?" for key in _nearest(name, named, most=1))
            return f"there is no command /{name[:40]}{near}"
        words = join(rest, words)
        command = named[fold(name)]
    return None if command is None else Found(command, tuple(chain), words)


def _exec_faults(command: ExecCommand) -> Iterator[tuple[str, str]]:
    """Yield the key of each fault and what it is."""
    if (command.command is None) == (command.argv is None):
        yield "", 'needs one of command = "…", for a shell, and argv = ["prog", "arg"]'
    if command.command is not None and not command.command.strip():
        yield "command", "is empty"
    if command.argv is not None and not (command.argv and command.argv[0].strip()):
        yield "argv", "is empty: it begins with the program"
    for key, text in (("command", command.command or ""), ("argv", " ".join(command.argv or ()))):
        if "{args}" in text:
            yield key, '{args} is not replaced: set args = "text" or "words", and take them as "$1", "$2"'
        if "\0" in text:
            yield key, "holds a NUL"
    yield from _surroundings_faults(command)


def _surroundings_faults(command: ExecCommand) -> Iterator[tuple[str, str]]:
    if command.cwd is not None and (not command.cwd.startswith("/") or "\0" in command.cwd):
        yield "cwd", "must be an absolute path"
    for name, value in command.env.items():
        if not name or "=" in name or "\0" in name + value:
            yield "env", "a name must not be empty or hold =, and neither name nor value a NUL"
        elif name == _EXEC_ID:
            yield "env", f"{_EXEC_ID} is the gateway's own"
