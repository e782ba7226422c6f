"""What a store is: the changes that it takes, the rows that it gives back.

A store takes *changes*, a transaction at a time: either all of a `commit` is there afterwards, or it raises and
none is. Nothing is told to anybody before its commit. Four kinds of row: sessions, events, turns, execs.

A commit that was given up (cancelled) may have happened or not. Whoever gave it up owes the store a `Retract` of
what was in it, and what was told without the store as `Late` changes; the store carries commits out in the order
in which they were asked for, so these come after it, whatever became of it.

`memory_store.py` and `sqlite_store.py` are stores; `testing.check_store` is what both must pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen

from gateway_trio.core.events import Body
from gateway_trio.core.events import Change as Outcome
from gateway_trio.core.session import TurnState

__all__ = [
    "AddEvent",
    "AddExec",
    "AddSession",
    "AddTurn",
    "Change",
    "DropSession",
    "EndExec",
    "EventRow",
    "Late",
    "MoveTurn",
    "Retract",
    "SessionRow",
    "SetText",
    "Store",
    "StoreUnavailable",
    "Work",
]


class StoreUnavailable(Exception):
    """The transaction did not happen: a condition did not hold, the disk is full, the store does not answer."""


# --- what a transaction is made of ---


@frozen
class AddSession:
    """A new conversation of `owner` (a principal's name), with an empty log that `epoch` names.

    `name` is what `/chat` calls it, None for `/acp`; with a name it is unique for its owner.
    """

    id: str
    owner: str
    name: str | None = None
    epoch: str = ""


@frozen
class DropSession:
    """Forget a session with its events; its turns' and execs' rows stay."""

    id: str


@frozen
class AddEvent:
    """A numbered event of a session; a number that is there already fails the transaction."""

    session: str
    number: int
    owner: str
    body: Body
    admin: bool = False


@frozen
class SetText:
    """The text of the message with this number, as far as it has grown. Nothing where the number is gone."""

    session: str
    number: int
    text: str


@frozen
class AddTurn:
    """An accepted prompt, in state `queued`.

    `digest` is of what was sent, to know a repeated key's prompt; `seq` the number of the prompt's event.
    """

    id: str
    session: str
    key: str | None
    digest: str
    seq: int = 0
    principal: str = ""


@frozen
class MoveTurn:
    """A change of a turn's state that only happens from one of `sources`, and else fails the transaction."""

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
    key: str | None = None
    digest: str = ""
    seq: int = 0


@frozen
class EndExec:
    """How an exec ended; one that does not run fails the transaction."""

    id: str
    facts: Mapping[str, Any]
    at: float


@frozen
class Retract:
    """Take back a commit of this session that was given up: events from `start` on, turns and execs likewise.

    Of turns and execs those go whose `seq` is `start` or more.
    """

    session: str
    start: int


@frozen
class Late:
    """A change that was told before it could be stored: where its condition does not hold, it does nothing."""

    change: MoveTurn | EndExec


Change = AddSession | DropSession | AddEvent | SetText | AddTurn | MoveTurn | AddExec | EndExec | Retract | Late


# --- what can be read back ---


@frozen
class SessionRow:
    """A session; `last` is the highest number of its events, 0 for none."""

    id: str
    owner: str
    name: str | None
    epoch: str
    last: int


@frozen
class EventRow:
    """An event as it was added; `text` is a message's, as far as it was set."""

    number: int
    owner: str
    body: Body
    admin: bool = False
    text: str = ""


@frozen
class Work:
    """A turn or an exec. `state` is a turn's; of an exec `running` or, once it has ended, `completed`.

    `at` is when it was added (Unix seconds), `outcome` the event that ended it and `outcome_at` that one's number,
    where the session has one. `principal` sent it; `command` is an exec's name, "" for a turn.
    """

    kind: str  #: "turn" or "exec"
    id: str
    session: str | None
    key: str | None
    digest: str
    seq: int
    state: TurnState
    at: float
    principal: str
    command: str = ""
    outcome: Outcome | None = None
    outcome_at: int = 0


class Store(Protocol):
    """Where accepted prompts, events and the audit stand.

    Every method but `open` and `aclose` may be called by many tasks at once. All raise `StoreUnavailable`.
    """

    durable: bool  #: whether what waits at the end of a drain runs after a restart

    async def open(self) -> None:
        """Make it ready. Raises `StoreUnavailable` with the reason, such as another gateway's lock.

        Cancelling gives it up, as when a signal ends the start of the program; then `aclose` is not called.
        """

    async def commit(self, changes: Sequence[Change]) -> None:
        """Carry out all changes, or none and raise; commits happen in the order of the calls.

        Cancelling gives up the waiting; the transaction may or may not have happened (see `Retract`).
        """

    async def aclose(self) -> None:
        """Carry out what was asked for, and let go of the lock. Cancelling gives that up."""

    async def session(self, session_id: str) -> SessionRow | None:
        """Return a session, None if there is none."""

    async def named(self, owner: str, name: str) -> SessionRow | None:
        """Return the session that this principal calls `name`, None if there is none."""

    async def sessions(self, owner: str | None, *, skip: int, limit: int) -> Sequence[SessionRow]:
        """Return sessions of one principal, or of all for None; the newest made first."""

    async def owners(self) -> Mapping[str, int]:
        """Return how many sessions each principal has."""

    async def events(self, session_id: str, start: int, *, keep_bytes: int) -> Sequence[EventRow]:
        """Return events from number `start` on, in order, as many as about `keep_bytes` hold; at least one.

        Numbers that are not kept any more are missing.
        """

    async def tail(self, session_id: str, *, before: int | None = None, keep_bytes: int) -> Sequence[EventRow]:
        """Return the newest events of those before number `before` (None: of all), in order.

        As many as about `keep_bytes` hold; at least one.
        """

    async def conversation(self, session_id: str, *, before: int, keep_bytes: int) -> Sequence[EventRow]:
        """Return the newest of those events before number `before` that make up the conversation, in order.

        They are prompts (lane `turn`) and changes (work "turn") of turns, answers (messages of kind `ANSWER`), and
        each `Update` with the data `NEW_CONVERSATION`: what `core.history.in_conversation` holds for. As many as
        about `keep_bytes` hold; at least one. A gateway that opens a session asks for them where its newest events
        are few turns and much else, so that it must not cost what stands between them.
        """

    async def growing(self, session_id: str, after: int) -> Sequence[int]:
        """Return the messages numbered `after` or lower whose turn or exec had not ended by `after`."""

    async def keyed(self, session_id: str, limit: int, *, since: float = math.inf) -> Sequence[Work]:
        """Return turns and execs of a session that have a key, oldest first.

        They are the newest `limit`, and of those before them the ones added at `since` (Unix seconds) or later.
        """

    async def unfinished(self) -> Sequence[Work]:
        """Return the turns that wait or run and the execs that run, oldest first."""
