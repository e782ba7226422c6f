import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_trio.core import words
from gateway_trio.core.words import (
    MAX_WORD_BYTES,
    MAX_WORDS,
    WordsError,
    check_words,
    split_command,
    split_words,
)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("/note", ("note", "")),
        ("/note ", ("note", "")),
        ("/note buy milk", ("note", "buy milk")),
        ("/note  buy  milk ", ("note", " buy  milk ")),
        ("/note\nbuy\nmilk", ("note", "buy\nmilk")),
        ("/note\tbuy", ("note", "buy")),
        ("/note\u00a0buy", ("note", "buy")),
        ("/note a/b /c", ("note", "a/b /c")),
        ("/", ("", "")),
        ("/ note", ("", "note")),
        ("/Ünïcode x", ("Ünïcode", "x")),
        ("/usr/bin/env x", None),
        ("/a/", None),
        ("//note", None),
        ("//", None),
        ("note", None),
        (" /note", None),
        ("", None),
        ("hello /note", None),
    ],
)
def test_what_is_a_command(text, parts):
    assert split_command(text) == parts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ()),
        (" \t\r\n", ()),
        ("a b", ("a", "b")),
        ("a 'b \"c' d", ("a", 'b "c', "d")),
        ('"a \\" \\\\ \\n" b', ('a " \\ \\n', "b")),
        ("a\\ b c", ("a b", "c")),
        ("''", ("",)),
        ("a''b\"c\"d", ("abcd",)),
        ("; rm -rf x", (";", "rm", "-rf", "x")),
        ("$(id) `id` * -n %s%n", ("$(id)", "`id`", "*", "-n", "%s%n")),
        ("# no comment", ("#", "no", "comment")),
    ],
)
def test_words_are_split_as_a_shell_would_and_never_expanded(text, words):
    assert split_words(text) == words


@given(st.text(alphabet="ab \t\n\\\\''\"\"#$é\u00a0", max_size=40))
def test_words_are_those_of_shlex(text):
    try:
        expected = tuple(shlex.split(text))
    except ValueError:
        with pytest.raises(WordsError):
            split_words(text)
    else:
        assert split_words(text) == expected


@given(st.lists(st.text(max_size=20), max_size=MAX_WORDS))
def test_quoted_words_come_back(words):
    assert split_words(shlex.join(words)) == tuple(words)


@pytest.mark.parametrize("text", ["'a", 'a "b', "a\\", "x '", '"\\"'])
def test_an_open_quote_is_refused(text):
    with pytest.raises(WordsError, match="left open"):
        split_words(text)


def test_too_many_words_and_too_much_text_are_refused():
    assert len(split_words("a " * MAX_WORDS)) == MAX_WORDS
    with pytest.raises(WordsError, match="more than 32"):
        split_words("a " * (MAX_WORDS + 1))
    with pytest.raises(WordsError, match="too long"):
        split_words(" " * 1_000_000)


@pytest.mark.parametrize("piece", ["a", "\\a", "'a'", '"a"', "a''"])
def test_a_word_that_is_too_long_is_read_no_further(piece):
    """However many pieces it has. An open quote behind it, which is met only by reading on, is not found."""
    assert split_words("x " + piece * MAX_WORD_BYTES) == ("x", "a" * MAX_WORD_BYTES)
    with pytest.raises(WordsError, match="word 2 is longer than 4096 bytes"):
        split_words("x " + piece * (MAX_WORD_BYTES + 1) + "'")


def test_each_word_is_put_together_once(monkeypatch):
    """A word that grows with every piece is copied with every piece: the square of their number."""

    class Counted(str):
        __slots__ = ()
        copied = 0

        def __radd__(self, before):
            Counted.copied += len(before)
            return before + str(self)

    monkeypatch.setattr(words, "_value", lambda piece, value=words._value: Counted(value(piece)))
    assert split_words("\\a" * MAX_WORD_BYTES) == ("a" * MAX_WORD_BYTES,)
    assert Counted.copied == 0


@pytest.mark.parametrize("text", ["x" * 200_000, "''" * 100_000, '"' + "\\a" * 99_000, "\\x" * 100_000])
def test_the_longest_text_is_taken_or_refused(text):
    try:
        (word,) = split_words(text)
    except WordsError as wrong:
        assert any(why in str(wrong) for why in ("too long", "left open", "longer than"))
    else:
        assert len(word) <= len(text)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ([], None),
        (["a"] * MAX_WORDS, None),
        (["a"] * (MAX_WORDS + 1), "there are more than 32 words"),
        (["x" * MAX_WORD_BYTES], None),
        (["a", "x" * (MAX_WORD_BYTES + 1)], "word 2 is longer than 4096 bytes"),
        (["é" * (MAX_WORD_BYTES // 2 + 1)], "word 1 is longer than 4096 bytes"),
        (["a\0b"], "word 1 holds a NUL"),
        (["a", "\ud800"], "word 2 holds a lone surrogate"),
        (["", "\n", "-n"], None),
    ],
)
def test_what_may_be_an_argument(words, wrong):
    assert check_words(words) == wrong
