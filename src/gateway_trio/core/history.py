"""Which turns a model is told of, kept up to date as a session's log grows.

So that a turn of a long conversation costs no more than one of a short one. What the log forgets stays here: the
output of quick commands pushes no prompt out of the history. It has a bound of its own.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence

from attrs import define, field

from gateway_trio.core.events import Body, Change, Entry, Kind, Message, Prompt, Update

__all__ = ["NEW_CONVERSATION", "History", "PastTurn", "Reach", "in_conversation"]

#: An `Update` with this data begins a new conversation in a session: no earlier turn is in the history.
NEW_CONVERSATION = "new conversation"

#: How much of a conversation is read at most for a prompt that stands before a very long answer.
_FAR_BYTES = 8 * 1024 * 1024


def in_conversation(body: Body) -> bool:
    """Whether a history is made of such events: prompts and changes of turns, answers, new conversations."""
    match body:
        case Prompt(lane="turn") | Message(Kind.ANSWER) | Change("turn"):
            return True
        case Update(data):
            return bool(data == NEW_CONVERSATION)
    return False


@define(eq=False)
class PastTurn:
    """What a history has of one turn."""

    id: str
    number: int  #: its prompt's
    prompt: Prompt
    bytes: int  #: what its prompt and its answer take in memory
    answer: deque[Entry] = field(factory=deque)  #: its messages; the text of the last may still grow
    state: str = "queued"
    ran_again: bool = False  #: as another turn, by `/retry`


class History:
    """The turns of a session. Its log tells it of each entry that it adds, and of each text that grows.

    At most `keep_bytes` of prompts and answers are kept. Of the turns that have ended the one that ended first
    goes first. If that is not enough, or only one turn is left, answers lose their beginnings.
    """

    def __init__(self, keep_bytes: int) -> None:
        self._keep_bytes = keep_bytes
        self._bytes = 0
        self._turns: dict[str, PastTurn] = {}
        self._ran: dict[str, PastTurn] = {}  #: in the order in which they ran
        self._ended: OrderedDict[str, PastTurn] = OrderedDict()  # its first is found in constant time
        self._newest: PastTurn | None = None
        self._cut: PastTurn | None = None

    @property
    def last(self) -> PastTurn | None:
        """The turn that `/retry` runs again; None if there is none.

        It is the newest. But where a turn was interrupted and nobody has asked anything since, it is that one,
        although what had waited behind it has run.
        """
        return self._cut or self._newest

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
                turn = PastTurn(entry.owner, entry.number, prompt, 0)
                self._turns[entry.owner] = self._newest = turn
                self._cut = None
                self._grow(turn, entry.bytes)
            case Message(Kind.ANSWER) if turn is not None:
                turn.answer.append(entry)
                self._grow(turn, entry.bytes)
            case Change("turn") as change if turn is not None:
                self._change(turn, change)

    def grown(self, entry: Entry, size: int) -> None:
        """Count what an entry's text has grown by."""
        turn = self._turns.get(entry.owner)
        if turn is not None and turn.answer and turn.answer[-1] is entry:
            self._grow(turn, size)

    def _change(self, turn: PastTurn, change: Change) -> None:
        turn.state = change.state
        if change.state == "running":
            self._ran[turn.id] = turn
            self._run_again(turn.prompt.replaces)
        elif change.state == "interrupted" and (self._cut is None or self._cut.number < turn.number):
            self._cut = turn
        if change.ends:
            self._ended[turn.id] = turn
            self._trim()

    def _run_again(self, replaced: str | None) -> None:
        if replaced is not None and (earlier := self._turns.get(replaced)) is not None:
            earlier.ran_again = True

    def _grow(self, turn: PastTurn, size: int) -> None:
        turn.bytes += size
        self._bytes += size
        self._trim()

    def _trim(self) -> None:
        while self._bytes > self._keep_bytes and (self._forget_turn() or self._forget_part()):
            pass

    def _forget_turn(self) -> bool:
        """Let go of the turn that ended first, unless it is the only one; return whether there was one."""
        if not self._ended or len(self._turns) == 1:
            return False
        id_, turn = self._ended.popitem(last=False)
        del self._turns[id_]
        self._ran.pop(id_, None)
        self._bytes -= turn.bytes
        turn.answer.clear()  # its prompt may be the one that `/retry` runs
        return True

    def _forget_part(self) -> bool:
        """Let go of the beginning of an answer, but never of all of it; return whether there was one.

        Those that are looked at wait or run, or there is but one.
        """
        turn = next((turn for turn in self._turns.values() if len(turn.answer) > 1), None)
        if turn is None:
            return False
        part = turn.answer.popleft().bytes
        turn.bytes -= part
        self._bytes -= part
        return True


@define
class Reach:
    """How far back a stored session is read for its history: until that is full, and the turns in it are whole.

    So the newest prompts are found also where an answer takes more than all of it. `left` is what it still takes.
    What is read once it is full is of no turn that has to be whole: pages end anywhere.
    """

    left: int
    _far: int = _FAR_BYTES
    _cut: set[str] = field(factory=set)  #: turns of which the prompt was not read yet

    def take(self, page: Sequence[Entry]) -> None:
        """Count what was read: some entries in order, from before those of the last time."""
        for entry in reversed(page):
            if not in_conversation(entry.body):
                continue
            if isinstance(entry.body, Prompt):
                self._cut.discard(entry.owner)
            elif self.left > 0 and not isinstance(entry.body, Update):
                self._cut.add(entry.owner)
            if isinstance(entry.body, Prompt | Message):  # a history counts nothing else
                self.left -= entry.bytes
            self._far -= entry.bytes

    @property
    def reached(self) -> bool:
        """Whether nothing before that is needed."""
        return self.left <= 0 and (not self._cut or self._far <= 0)
