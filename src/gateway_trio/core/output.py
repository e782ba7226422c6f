r"""What a command wrote, made fit for a chat, and how much of it is shown: pure, no clock, no I/O.

Bytes go through an `OutputFilter` and come out as text; the text goes through a `Kept`, which decides what is
shown. Both are fed piece by piece, as reads happen to cut the output, and neither's result depends on where.

The filter has four stages, each of which holds back what it cannot decide yet:

    stage                                 holds back at most
    UTF-8 to text, errors replaced        3 bytes
    CR LF and CR become newline           1 character
    escapes and controls vanish           `LONGEST_ESCAPE` characters and a few
    secrets become `***`                  the longest secret less 1

A terminal would wait for the end of an escape sequence for ever. Here one that is longer than
`LONGEST_ESCAPE`, or that the output ends in, was none: what introduced it is dropped and its body is text.
No sequence but the last can hold an introducer (ESC or a C1 control) in its body, so that each character is
looked at a bounded number of times, whatever the output is made of.

A secret is held back only where the text ends in the beginning of one, so that an ordinary line is shown at
once. Where several match, the leftmost wins, and the longest of those.
"""

from __future__ import annotations

import codecs
import re
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "HEAD_CHARS",
    "LONGEST_ESCAPE",
    "REDACTED",
    "SHORTEST_SECRET",
    "TAIL_CHARS",
    "Kept",
    "OutputFilter",
]

SHORTEST_SECRET = 8  #: characters; a shorter value would also strike out innocent text
LONGEST_ESCAPE = 4096  #: characters of an escape sequence's body
HEAD_CHARS = 32 * 1024
TAIL_CHARS = 32 * 1024
REDACTED = "***"

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

# The quantifiers are possessive (`+` after them): none of them ever gives back what it took.
_BODY = f"{{0,{LONGEST_ESCAPE}}}+"
_CSI = rf"(?:\x1b\[|\x9b)[0-?]{_BODY}"
_CSI_MIDDLE = r"[ -/]{0,8}+"
_STRING = rf"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x18\x1a\x1b\x80-\x9f]{_BODY}"
_STRING_END = r"(?:[\x07\x18\x1a\x9c]|\x1b\\|(?=[\x1b\x80-\x9f]))"
_OTHER = r"\x1b[ -/]{0,8}+"

_SEQUENCE = re.compile(rf"{_CSI}{_CSI_MIDDLE}[@-~]|{_STRING}{_STRING_END}|{_OTHER}[0-~]|{_CONTROL.pattern}")
_UNDECIDED = re.compile(rf"(?:{_CSI}{_CSI_MIDDLE}|{_STRING}\x1b?|{_OTHER})\Z")
_LONGEST_UNDECIDED = LONGEST_ESCAPE + 16


class OutputFilter:
    """Bytes in, text out: decoded, without escape sequences and control characters, without secrets.

    Newline and tab are the only controls that come through. What is held back between two calls is bounded by
    `LONGEST_ESCAPE` and the longest secret, and the time is linear in the bytes.

    Args:
      secrets: Values that must not be shown, each as a whole replaced by `***`. Those of fewer than
        `SHORTEST_SECRET` characters are ignored.

    """

    def __init__(self, secrets: Sequence[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held_return = ""
        self._held_escape = ""
        self._redactor = _Redactor(secrets)

    def feed(self, data: bytes) -> str:
        """Take the next bytes and return the text that is certain now; it may be empty."""
        return self._through(self._decoder.decode(data), final=False)

    def finish(self) -> str:
        """Return the rest. The filter must not be fed afterwards."""
        return self._through(self._decoder.decode(b"", final=True), final=True)

    def _through(self, text: str, *, final: bool) -> str:
        text = self._newlines(text, final=final)
        text = self._strip(text, final=final)
        return self._redactor.feed(text, final=final)

    def _newlines(self, text: str, *, final: bool) -> str:
        text, self._held_return = self._held_return + text, ""
        if "\r" not in text:
            return text
        if text.endswith("\r") and not final:
            text, self._held_return = text[:-1], "\r"
        return _only_newlines(text)

    def _strip(self, text: str, *, final: bool) -> str:
        text, self._held_escape = self._held_escape + text, ""
        if not _CONTROL.search(text):
            return text
        if not final:
            undecided = _UNDECIDED.search(text, max(0, len(text) - _LONGEST_UNDECIDED))
            if undecided:
                self._held_escape = text[undecided.start() :]
                text = text[: undecided.start()] + "\x1b"  # ends a string, as what is held does
        return _SEQUENCE.sub("", text)


def _only_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


class _Redactor:
    """Puts `***` in the place of secrets, in text that comes in pieces."""

    def __init__(self, secrets: Sequence[str]) -> None:
        # As the text has been through the filter, so must what is looked for in it.
        clean = {_SEQUENCE.sub("", _only_newlines(secret)) for secret in secrets}
        self._secrets = sorted((s for s in clean if len(s) >= SHORTEST_SECRET), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, self._secrets)))
        self._beginnings = {s[:n] for s in self._secrets for n in range(1, SHORTEST_SECRET)}
        self._held = ""

    def feed(self, text: str, *, final: bool) -> str:
        """Return the text as far as it is decided: all of it if `final`."""
        if not self._secrets:
            return text
        text, self._held = self._held + text, ""
        done: list[str] = []
        at = 0
        end = len(text) if final else self._undecided(text, 0)
        # The pattern is slow next to `in`, and hardly ever finds anything.
        found = self._pattern.search(text) if any(secret in text for secret in self._secrets) else None
        while found and found.start() < end:
            done += text[at : found.start()], REDACTED
            at = found.end()
            if end < at:  # what looked like a beginning was the end of this one
                end = self._undecided(text, at)
            found = self._pattern.search(text, at)
        done.append(text[at:end])
        self._held = text[end:]
        return "".join(done)

    def _undecided(self, text: str, at: int) -> int:
        """Return the first place from `at` on where a secret may begin that goes on later; else the end."""
        first = len(text)
        for secret in self._secrets:
            begins = secret[:SHORTEST_SECRET]
            place = text.find(begins, max(at, len(text) - len(secret) + 1))
            while 0 <= place < first:
                if secret.startswith(text[place:]):
                    first = place
                place = text.find(begins, place + 1)
        for place in range(max(at, len(text) - SHORTEST_SECRET + 1), first):
            if text[place:] in self._beginnings:
                return place
        return first


class Kept:
    """What is shown of a text that may be endless: its head, as it comes, and at the end its tail.

    Memory is bounded by the tail and the largest piece; each piece costs its length.

    Args:
      head_chars: How many characters are passed through.
      tail_chars: How many of those after them are kept for the end.

    """

    def __init__(self, head_chars: int = HEAD_CHARS, tail_chars: int = TAIL_CHARS) -> None:
        self._head_left = head_chars
        self._tail_chars = tail_chars
        self._tail: deque[str] = deque()
        self._tail_held = 0
        self._after_head = 0

    @property
    def cut(self) -> int:
        """How many characters are lost so far: neither in the head nor in the tail."""
        return max(0, self._after_head - self._tail_chars)

    def add(self, text: str) -> str:
        """Take the next piece and return what of it is to be shown now; it may be empty."""
        head, text = text[: self._head_left], text[self._head_left :]
        self._head_left -= len(head)
        if text:
            self._after_head += len(text)
            text = text[max(0, len(text) - self._tail_chars) :]
            self._tail.append(text)
            self._tail_held += len(text)
            while self._tail and self._tail_held - len(self._tail[0]) >= self._tail_chars:
                self._tail_held -= len(self._tail.popleft())
        return head

    def finish(self) -> str:
        """Return what is shown after the head: a line that counts what was lost, if any was, and the tail."""
        tail = "".join(self._tail)
        tail = tail[max(0, len(tail) - self._tail_chars) :]
        return f"\n[… {self.cut} characters left out …]\n{tail}" if self.cut else tail
