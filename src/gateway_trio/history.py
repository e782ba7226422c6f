"""What a session's log is to the model: prompts and answers, and nothing of execs or control commands."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import overload

from gateway_trio.agents import HistoryItem
from gateway_trio.core.event_log import Log
from gateway_trio.core.events import Prompt
from gateway_trio.core.history import PastTurn

__all__ = ["Past", "last_prompt"]


class Past(Sequence[HistoryItem]):
    """Prompts and answers of the turns of this conversation, in the order in which they ran.

    They are read when somebody asks for them, and then stand. The newest, `past[-n:]`, cost what is taken, however
    many there are.

    Args:
        log: the session's.
        before: the turn that asks, to which those that ran before it are its past; None for all.

    """

    def __init__(self, log: Log, *, before: str | None = None) -> None:
        self._log = log
        self._before = before
        self._items: tuple[HistoryItem, ...] | None = None

    def __len__(self) -> int:
        return len(self._all())

    def __iter__(self) -> Iterator[HistoryItem]:
        return iter(self._all())

    @overload
    def __getitem__(self, index: int) -> HistoryItem: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[HistoryItem, ...]: ...
    def __getitem__(self, index: int | slice) -> HistoryItem | tuple[HistoryItem, ...]:
        match index:
            case slice(start=int(start), stop=None, step=None) if start < 0 and self._items is None:
                return self._newest(-start)
        return self._all()[index]

    def _all(self) -> tuple[HistoryItem, ...]:
        if self._items is None:
            self._items = self._newest(None)
        return self._items

    def _newest(self, count: int | None) -> tuple[HistoryItem, ...]:
        turns = self._log.history.newest(before=self._before)
        items = (item for turn in turns for item in reversed(_items(turn)))
        return tuple(itertools.islice(items, count))[::-1]


def _items(turn: PastTurn) -> list[HistoryItem]:
    items = [HistoryItem("user", turn.prompt.text)]
    if turn.answer:
        cut = turn.state != "completed"
        items.append(HistoryItem("assistant", "".join(str(entry.text) for entry in turn.answer), interrupted=cut))
    return items


def last_prompt(log: Log) -> tuple[str, Prompt] | None:
    """Return the id and the prompt of the turn that `/retry` runs again; None if there is none."""
    turn = log.history.last
    return None if turn is None else (turn.id, turn.prompt)
