"""How much the log may grow: so many lines of each event, and so long a line.

Pure: the caller brings the time. Lines are counted by *key*: the logger's name and the event, and for what is part
of the audit the principal too, so that neither a stranger's flood nor one user's hides what another did. Beyond
its limit a line is left out and counted. The count is told by the next line of that key, or once `QUIET_SECONDS`
have gone by without one, by a line of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway_trio.core.rates import Rates
from gateway_trio.core.text import clean

__all__ = ["AUDIT", "AUDIT_LINES", "KEYS", "LINES", "QUIET_SECONDS", "Floods", "bounded"]

#: Lines of one key at once, and as many again within a minute.
LINES = 100
AUDIT_LINES = 600

#: What is part of the audit: who ran what, and who was refused what.
AUDIT = frozenset({"gateway_trio.execs: exec", "gateway_trio.desk: refused", "gateway_trio.control: refused"})

#: How long a count of lines that were left out waits for a next line to tell it.
QUIET_SECONDS = 60.0

#: Keys that are told apart; all others beyond them are one, as a foreign library may say something else each time.
KEYS = 1000

#: Characters of a value, of a traceback, and of a line, give or take its names and numbers.
VALUE_CHARS = 2000
EXCEPTION_CHARS = 16_000
LINE_CHARS = 24_000

#: Of a list or an object; and how deep they may stand in each other.
ITEMS = 20
DEPTH = 4

_MINUTE = 60.0
_KEY_CHARS = 120
_OTHERS = "others"


class Floods:
    """Decides which lines are written."""

    def __init__(self) -> None:
        self._usual = Rates(LINES, _MINUTE)
        self._audit = Rates(AUDIT_LINES, _MINUTE)
        self._keys: set[str] = set()
        self._left_out: dict[str, tuple[int, float]] = {}  #: key → how many, and when the last of them came

    def take(self, logger: str, event: str, principal: str, now: float) -> int | None:
        """Return None for a line that is left out, else how many of its key were left out before it.

        `principal` is "" where there is none; `now` is in seconds of a clock that never goes back.
        """
        key, rates = f"{logger}: {event}"[:_KEY_CHARS], self._usual
        if key in AUDIT:
            key, rates = f"{key}: {principal}", self._audit
        if key not in self._keys and len(self._keys) >= KEYS:
            key, rates = _OTHERS, self._usual
        self._keys.add(key)
        before = self._left_out.get(key, (0, now))[0]
        if rates.take(key, now):
            self._left_out[key] = (before + 1, now)
            return None
        self._left_out.pop(key, None)
        return before

    def due(self, now: float) -> dict[str, int]:
        """Return, and forget, the counts that waited for `QUIET_SECONDS`; with `now` infinite all of them."""
        found = {key: count for key, (count, last) in self._left_out.items() if now - last >= QUIET_SECONDS}
        for key in found:
            del self._left_out[key]
        return found


def bounded(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a line, cut to what one may have; what was cut says so, and by how much."""
    room = _Room()
    return {
        key: room.cut(value, EXCEPTION_CHARS if key == "exception" else VALUE_CHARS) for key, value in line.items()
    }


class _Room:
    """What is left of a line's characters."""

    def __init__(self) -> None:
        self._left = LINE_CHARS

    def cut(self, value: Any, most: int, depth: int = 0) -> Any:
        if isinstance(value, bool | int | float | None):
            return value
        if isinstance(value, Mapping) and depth < DEPTH:
            kept = {clean(str(key)[:most]): self.cut(value[key], most, depth + 1) for key in list(value)[:ITEMS]}
            return kept if len(value) <= ITEMS else {**kept, "…": f"{len(value) - ITEMS} more"}
        if isinstance(value, list | tuple | set | frozenset) and depth < DEPTH:
            items = [self.cut(item, most, depth + 1) for item in list(value)[:ITEMS]]
            return items if len(value) <= ITEMS else [*items, f"… {len(value) - ITEMS} more"]
        return self._text(value if isinstance(value, str) else repr(value), most)

    def _text(self, text: str, most: int) -> str:
        """Return a text's beginning and end, as the end of a traceback is what tells most.

        Half a surrogate pair is replaced: many a reader of JSON refuses a line that holds one.
        """
        most = min(most, self._left)
        self._left -= min(len(text), most)
        if len(text) <= most:
            return clean(text)
        start, end = text[: most // 2], text[len(text) - most + most // 2 :]
        return f"{clean(start)}[… {len(text) - most} characters …]{clean(end)}"
