"""Updates that wait to be taken by one reader, within bounds.

Text of one message that follows text is joined to it, so that who reads slowly gets larger pieces, not more of
them. Beyond the bounds the oldest go, and how many is told in their place.
"""

from __future__ import annotations

from collections import deque

from attrs import define, evolve

from gateway_trio.core.updates import Skipped, Text, Update

__all__ = ["MOST_CHARS", "MOST_UPDATES", "Feed"]

MOST_UPDATES = 1000
MOST_CHARS = 4 * 1024 * 1024


@define
class _Item:
    update: Update
    parts: list[str]
    end: int  #: where the text ends in its message

    def whole(self) -> Update:
        return evolve(self.update, text="".join(self.parts)) if isinstance(self.update, Text) else self.update


class Feed:
    """Updates in, updates out, in their order."""

    def __init__(self, *, most_updates: int = MOST_UPDATES, most_chars: int = MOST_CHARS) -> None:
        self._most_updates = most_updates
        self._most_chars = most_chars
        self._items: deque[_Item] = deque()
        self._chars = 0
        self._skipped = 0

    def put(self, update: Update) -> None:
        """Add an update; the oldest go where there are too many, but never this one."""
        if isinstance(update, Text):
            self._chars += len(update.text)
            self._put_text(update)
        else:
            self._items.append(_Item(update, [], 0))
        while len(self._items) > 1 and (len(self._items) > self._most_updates or self._chars > self._most_chars):
            self._chars -= sum(map(len, self._items.popleft().parts))
            self._skipped += 1

    def _put_text(self, update: Text) -> None:
        tail = self._items[-1] if self._items else None
        if tail and isinstance(tail.update, Text) and (tail.update.seq, tail.end) == (update.seq, update.at):
            tail.parts.append(update.text)
            tail.end += len(update.text)
        else:
            self._items.append(_Item(update, [update.text], update.at + len(update.text)))

    def take(self) -> Update | None:
        """Return the next update, None if there is none."""
        if self._skipped:
            skipped, self._skipped = self._skipped, 0
            return Skipped(skipped)
        if not self._items:
            return None
        item = self._items.popleft()
        self._chars -= sum(map(len, item.parts))
        return item.whole()
