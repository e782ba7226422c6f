"""What a store is, and the one in memory.

A store takes *changes*, a transaction at a time: either all of a `commit` is there afterwards, or it raises and
none is. Nothing is told to anybody before its commit. Four kinds of row: sessions, events, turns, execs.

`MemoryStore` has a row as soon as it is told of it and forgets everything at exit. The texts and events of a
session are in its log anyway, which is bounded; so it keeps no second copy of them.
"""

from __future__ import annotations

from collections import ChainMap, deque
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import define, frozen

from gateway_trio.core.events import Body
from gateway_trio.core.session import OUTCOMES, TurnState

__all__ = [
    "AddEvent",
    "AddExec",
    "AddSession",
    "AddTurn",
    "Change",
    "EndExec",
    "ExecRow",
    "MemoryStore",
    "MoveTurn",
    "SetText",
    "Store",
    "StoreUnavailable",
]


class StoreUnavailable(Exception):
    """The transaction did not happen: the disk is full, or the store does not answer."""


@frozen
class AddSession:
    """A new conversation of `owner` (a principal's name); `name` is what `/chat` calls it, None for `/acp`."""

    id: str
    owner: str
    name: str | None = None


@frozen
class AddEvent:
    session: str
    number: int
    owner: str
    body: Body
    admin: bool = False


@frozen
class SetText:
    """The text of the message with this number, as far as it has grown."""

    session: str
    number: int
    text: str


@frozen
class AddTurn:
    """An accepted prompt, in state `queued`. `digest` is of what was sent, to know a repeated key's prompt."""

    id: str
    session: str
    key: str | None
    digest: str


@frozen
class MoveTurn:
    """A change of a turn's state that only happens from one of `sources`."""

    id: str
    sources: frozenset[TurnState]
    state: TurnState


@frozen
class AddExec:
    """The audit row of an exec, written before its process: who ran what, with which words (Unix seconds)."""

    id: str
    session: str | None
    principal: str
    command: str
    words: tuple[str, ...]
    at: float


@frozen
class EndExec:
    id: str
    facts: Mapping[str, Any]
    at: float


Change = AddSession | AddEvent | SetText | AddTurn | MoveTurn | AddExec | EndExec


class Store(Protocol):
    """Where accepted prompts, events and the audit stand."""

    durable: bool  #: whether what waits at the end of a drain runs after a restart

    async def open(self) -> None:
        """Make it ready. Raises `StoreUnavailable` with the reason, such as another gateway's lock."""

    async def commit(self, changes: Sequence[Change]) -> None:
        """Carry out all changes, or none. Raises `StoreUnavailable`.

        Cancelling gives up the waiting; the transaction may or may not have happened.
        """

    async def aclose(self) -> None:
        """Write what is left and let go of the lock."""


@define
class ExecRow:
    """The audit of one exec; `ended` is None while it runs."""

    begun: AddExec
    ended: EndExec | None = None


class MemoryStore:
    """Keeps the newest `keep` sessions, and of the turns and execs that have ended; loses everything at exit."""

    durable = False

    def __init__(self, keep: int = 10_000) -> None:
        self.sessions: dict[str, AddSession] = {}
        self.turns: dict[str, TurnState] = {}
        self.execs: dict[str, ExecRow] = {}
        self._ended: deque[tuple[dict[str, Any], str]] = deque()
        self._keep = keep

    async def open(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to do."""

    async def commit(self, changes: Sequence[Change]) -> None:
        """Carry out all changes at once, with no checkpoint; a conditional one that fails fails all of them."""
        self._check(changes)
        for change in changes:
            self._apply(change)

    def _check(self, changes: Sequence[Change]) -> None:
        """Raise for the first change that the rows, with those before it, do not allow."""
        turns, execs = ChainMap({}, self.turns), dict[str, bool]()
        for change in changes:
            match change:
                case AddTurn():
                    turns[change.id] = TurnState.QUEUED
                case MoveTurn():
                    if turns.get(change.id) not in change.sources:
                        raise StoreUnavailable(
                            f"turn {change.id} is not {sorted(s.value for s in change.sources)}"
                        )
                    turns[change.id] = change.state
                case AddExec():
                    execs[change.id] = True
                case EndExec():
                    row = self.execs.get(change.id)
                    if not execs.get(change.id, row is not None and row.ended is None):
                        raise StoreUnavailable(f"exec {change.id} does not run")
                    execs[change.id] = False

    def _apply(self, change: Change) -> None:
        match change:
            case AddSession():
                self.sessions[change.id] = change
                if len(self.sessions) > self._keep:
                    del self.sessions[next(iter(self.sessions))]
            case AddTurn():
                self.turns[change.id] = TurnState.QUEUED
            case MoveTurn():
                self.turns[change.id] = change.state
                if change.state in OUTCOMES:
                    self._forget_oldest(self.turns, change.id)
            case AddExec():
                self.execs[change.id] = ExecRow(change)
            case EndExec():
                self.execs[change.id].ended = change
                self._forget_oldest(self.execs, change.id)
            case AddEvent() | SetText():
                pass

    def _forget_oldest(self, rows: dict[str, Any], ended: str) -> None:
        self._ended.append((rows, ended))
        if len(self._ended) > self._keep:
            oldest, id_ = self._ended.popleft()
            del oldest[id_]
