"""How much of something each key may have in a time: a bucket for each, which fills again evenly.

Pure: the caller brings the time. A key that has spent nothing for `seconds` has a full bucket, which is that of a
key never seen, so it is forgotten; beyond `KEYS` the one that spent longest ago is. That one may then have more
than its due, which costs less than a table that strangers can fill.
"""

from __future__ import annotations

__all__ = ["KEYS", "Rates"]

#: Keys that are remembered.
KEYS = 10_000


class Rates:
    """At most `limit` at once, and as many again within `seconds`; both may be changed at any time."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self._spent: dict[str, tuple[float, float]] = {}  #: key → what it has spent, and when that was so

    def __len__(self) -> int:
        return len(self._spent)

    def take(self, key: str, now: float) -> float:
        """Spend one. Return 0, or if there is none, the seconds until there is; then nothing was spent.

        `now` is in seconds of a clock that never goes back.
        """
        spent = self._left(key, now)
        if spent + 1 > self.limit:
            return (spent + 1 - self.limit) * self.seconds / self.limit
        self._spent.pop(key, None)
        self._spent[key] = (spent + 1, now)  # behind all others: the first is the one that spent longest ago
        self._forget(now)
        return 0.0

    def _left(self, key: str, now: float) -> float:
        """Return what is spent now, a part of it having come back."""
        spent, when = self._spent.get(key, (0.0, now))
        return max(0.0, spent - (now - when) * self.limit / self.seconds)

    def _forget(self, now: float) -> None:
        while len(self._spent) > 1:
            oldest = next(iter(self._spent))
            if len(self._spent) <= KEYS and self._left(oldest, now) > 0:
                return
            del self._spent[oldest]
