"""How a prompt falls into a command's name and its words. Pure text; what exists is `catalog`'s business.

    "/note buy milk"   → name "note", rest "buy milk"
    "/usr/bin/env x"   → no command: its first word is a path
    "//note"           → no command: the agent is sent "/note"
    "/" and "/Ünïcode" → commands, of names that nothing can have

The rest follows the name and exactly one blank, as it is. `split_words` takes it apart by the rules of a
POSIX shell's quoting, as `shlex.split` does, but in linear time: `shlex` needs 0.4 s for one word of 128 KiB,
and this runs in the event loop on whatever a client sends.
"""

import re
from collections.abc import Sequence

__all__ = ["MAX_WORDS", "MAX_WORD_BYTES", "WordsError", "check_words", "split_command", "split_words"]

MAX_WORDS = 32
MAX_WORD_BYTES = 4096  #: of UTF-8

_MOST_TEXT = 2 * MAX_WORDS * (MAX_WORD_BYTES + 2)  # every character escaped, or every word quoted
_COMMAND = re.compile(r"/([^\s/]*)(?:\s(.*))?", re.DOTALL)
_PIECE = re.compile(
    r"""(?P<blank>[ \t\r\n]++)
      | (?P<plain>[^ \t\r\n'"\\]++)
      | '(?P<single>[^']*+)'
      | "(?P<double>(?:[^"\\]++|\\.)*+)"
      | \\(?P<escaped>.)""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPED_IN_DOUBLE = re.compile(r'\\(["\\])')


class WordsError(ValueError):
    """A command was given words that it does not take. The text is a sentence, without its full stop."""


def split_command(text: str) -> tuple[str, str] | None:
    """Return the name and the rest of a command, or None if the text is none.

    The name may be one that no command can have, such as the empty one. It ends at any white space.
    """
    match = _COMMAND.fullmatch(text)
    return None if match is None else (match[1], match[2] or "")


def split_words(text: str) -> tuple[str, ...]:
    """Return the words of `text`, with the quotes and backslashes of a POSIX shell and no expansion.

    Raises `WordsError` for an open quote or a lone backslash at the end, for more words than `MAX_WORDS`, and for
    one of more characters than `MAX_WORD_BYTES`; what stands behind such a word is not looked at.
    """
    if len(text) > _MOST_TEXT:
        raise WordsError("the text is too long")
    words: list[list[str]] = []  # each in pieces: a word that grew would be copied with every one
    inside, at, size = False, 0, 0
    while at < len(text):
        piece = _PIECE.match(text, at)
        if piece is None:
            raise WordsError("a quote was left open")
        at = piece.end()
        if piece["blank"]:
            inside = False
            continue
        if not inside:
            if len(words) == MAX_WORDS:
                raise WordsError(f"there are more than {MAX_WORDS} words")
            words.append([])
            inside, size = True, 0
        value = _value(piece)
        size += len(value)
        if size > MAX_WORD_BYTES:
            raise WordsError(_too_long(len(words)))
        words[-1].append(value)
    return tuple("".join(pieces) for pieces in words)


def _value(piece: re.Match[str]) -> str:
    if piece["double"] is not None:
        return _ESCAPED_IN_DOUBLE.sub(r"\1", piece["double"])
    return piece["plain"] or piece["single"] or piece["escaped"] or ""


def _too_long(number: int) -> str:
    return f"word {number} is longer than {MAX_WORD_BYTES} bytes"


def check_words(words: Sequence[str]) -> str | None:
    """Return what keeps these words from being arguments of a process, or None.

    At most `MAX_WORDS`, each at most `MAX_WORD_BYTES` of UTF-8, without NUL and without a lone surrogate.
    """
    if len(words) > MAX_WORDS:
        return f"there are more than {MAX_WORDS} words"
    for number, word in enumerate(words, start=1):
        if "\0" in word:
            return f"word {number} holds a NUL"
        try:
            size = len(word.encode())
        except UnicodeEncodeError:
            return f"word {number} holds a lone surrogate"
        if size > MAX_WORD_BYTES:
            return _too_long(number)
    return None
