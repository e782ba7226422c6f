"""Which turns of a log a model is told of, kept up to date as the log grows and forgets.

So that a turn of a long conversation costs no more than one of a short one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from attrs import define, field

from gateway_trio.core.events import Change, Entry, Kind, Message, Prompt, Update

__all__ = ["NEW_CONVERSATION", "History", "PastTurn"]

#: An `Update` with this data begins a new conversation in a session: no earlier turn is in the history.
NEW_CONVERSATION = "new conversation"


@define(eq=False)
class PastTurn:
    """What a log has of one turn."""

    prompt: Prompt
    answer: list[Entry] = field(factory=list)  #: its messages; their texts may still grow
    state: str = "queued"
    ran_again: bool = False  #: as another turn, by `/retry`


class History:
    """The turns of this conversation. A log tells it of each entry that it adds, and of each that it forgets."""

    def __init__(self) -> None:
        self._turns: dict[str, PastTurn] = {}
        self._ran: dict[str, PastTurn] = {}  #: in the order in which they ran

    def newest(self, *, before: str | None = None) -> Iterator[PastTurn]:
        """Return the turns that ran, the newest first; to be used up before the log changes.

        With `before`, those that ran before this one. One that was run again is left out.
        """
        ran = reversed(self._ran.items())
        if before is not None:
            ran = itertools.dropwhile(lambda item: item[0] != before, ran)
            next(ran, None)
        for _, turn in ran:
            if not turn.ran_again:
                yield turn

    def add(self, entry: Entry) -> None:
        """Take a new entry of the log."""
        turn = self._turns.get(entry.owner)
        match entry.body:
            case Update(data) if data == NEW_CONVERSATION:
                self._ran.clear()
            case Prompt(lane="turn") as prompt:
                self._turns[entry.owner] = PastTurn(prompt)
            case Message(Kind.ANSWER) if turn is not None:
                turn.answer.append(entry)
            case Change("turn", _, state) if turn is not None:
                turn.state = state
                if state == "running":
                    self._ran[entry.owner] = turn
                    self._run_again(turn.prompt.replaces)

    def _run_again(self, replaced: str | None) -> None:
        if replaced is not None and (earlier := self._turns.get(replaced)) is not None:
            earlier.ran_again = True

    def forget(self, entry: Entry) -> None:
        """Let go of what the log does: a turn goes with its prompt, and a part of its answer with that."""
        match entry.body:
            case Prompt(lane="turn"):
                self._turns.pop(entry.owner, None)
                self._ran.pop(entry.owner, None)
            case Message(Kind.ANSWER):
                turn = self._turns.get(entry.owner)
                if turn is not None:
                    turn.answer = [part for part in turn.answer if part is not entry]
