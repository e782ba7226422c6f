import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_trio.core.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, with\ta tab\nand a line", "plain, with\ta tab\nand a line"),
        ("\x1b[2J\x1b]0;title\x07", "[2J]0;title"),
        ("\x9b31m\x85\x7f\x00", "31m"),
        ("over\rwritten\x08", "overwritten"),
        ("user\u202etxt.exe\u2066", "usertxt.exe"),
        ("grüße 🙂 漢字", "grüße 🙂 漢字"),
    ],
)
def test_what_would_be_an_instruction_is_taken_out(text, shown):
    assert printable(text) == shown


@given(st.text(), st.integers(0, 20))
def test_pieces_are_as_good_as_the_whole(text, place):
    assert printable(text[:place]) + printable(text[place:]) == printable(text)
    assert not any(ord(char) < 32 and char not in "\n\t" for char in printable(text))
