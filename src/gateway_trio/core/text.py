"""A text that grows at its end and is read from any place, both without copying what is there already.

And what makes a text from elsewhere one that can be sent: `clean`, `short`.
"""

from __future__ import annotations

__all__ = ["Text", "clean", "short"]

_BLOCK = 4096


class Text:
    """Characters (code points) in blocks of equal length, but the last.

    Appending costs what is appended and at most one block; reading costs what is read. A plain `str` would be
    copied whole with every word of an answer.
    """

    __slots__ = ("_blocks", "_length", "bytes")

    def __init__(self, text: str = "") -> None:
        self._blocks: list[str] = [""]
        self._length = 0
        self.bytes = 0  #: the length in UTF-8
        self.append(text)

    def __len__(self) -> int:
        return self._length

    def __str__(self) -> str:
        return "".join(self._blocks)

    def append(self, text: str) -> None:
        """Append a text, whole; what cannot be appended raises before anything has changed."""
        tail = self._blocks[-1] + text
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        self._blocks[-1:] = [tail[i : i + _BLOCK] for i in range(0, max(len(tail), 1), _BLOCK)]
        self._length += len(text)
        self.bytes += size

    def read(self, at: int, room: int) -> str:
        """Return at most `room` characters from `at` on."""
        end = min(at + room, self._length)
        if at >= end:
            return ""
        first, last = at // _BLOCK, (end - 1) // _BLOCK
        found = "".join(self._blocks[first : last + 1])
        return found[at - first * _BLOCK : end - first * _BLOCK]


def clean(text: str) -> str:
    """Join surrogate pairs and replace lone ones, which no frame can carry."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def short(text: str, most: int) -> str:
    """Return a text as one line of at most `most` characters, for a notice that names it."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most and len(text) <= 4 * most else f"{line[: most - 1]}…"
