"""What may be written to a person's terminal: nothing in a text is an instruction to it."""

from __future__ import annotations

import re

__all__ = ["printable"]

#: C0 and C1 but newline and tab (ECMA-48), and what turns the direction of text around (Unicode, UAX 9).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return a text without control characters; newlines and tabs stay. A text may be given in pieces."""
    return _CONTROL.sub("", text)
