import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway_trio.core.text import Text, clean, short

_pieces = st.lists(
    st.sampled_from(["", "a", "é😀\ud800", "x" * 4095, "y" * 4096, "ü" * 4097, "z" * 9000]), max_size=8
)


@example(["", "a"], 0, 5)
@given(_pieces, st.integers(0, 30_000), st.integers(0, 30_000))
def test_it_reads_like_the_string_that_was_appended(pieces, at, room):
    text = Text(pieces[0]) if pieces else Text()
    for piece in pieces[1:]:
        text.append(piece)
    whole = "".join(pieces)
    assert str(text) == whole
    assert len(text) == len(whole)
    assert text.bytes == len(whole.encode("utf-8", "surrogatepass"))
    assert text.read(at, room) == whole[at : at + room]


def test_appending_does_not_copy_what_is_there():
    text = Text("x" * 1_000_000)
    blocks = [id(block) for block in text._blocks[:-1]]
    text.append("y" * 10_000)
    assert [id(block) for block in text._blocks[: len(blocks)]] == blocks


@pytest.mark.parametrize("other", [b"abc", b"", None, 5, ["a"]])
def test_what_is_no_text_is_not_appended_in_part(other):
    """A length that is not that of the characters would keep whoever reads waiting for characters for ever."""
    text = Text("ab")
    with pytest.raises(TypeError):
        text.append(other)
    assert (str(text), len(text), text.bytes) == ("ab", 2, 2)
    text.append("c")
    assert (text.read(0, 9), len(text), text.bytes) == ("abc", 3, 3)


@given(st.text(alphabet="ab \n\t", max_size=60), st.integers(1, 12))
def test_a_short_text_is_one_line_within_its_limit(text, most):
    line = short(text, most)
    assert len(line) <= most
    assert "\n" not in line
    whole = " ".join(text.split())
    assert line == whole or (line.endswith("…") and whole.startswith(line[:-1].rstrip()))


def test_what_was_left_out_is_shown():
    assert short("one\n  two", 20) == "one two"
    assert short("abcdefgh", 8) == "abcdefgh"
    assert short("abcdefghi", 8) == "abcdefg…"
    assert short("a" + " " * 40, 8) == "a…", "what stands behind a long gap is left out, and that is said"


def test_lone_surrogates_are_replaced_and_pairs_are_joined():
    assert clean("plain") == "plain"
    assert clean("é😀") == "é😀"
    assert clean("\ufeffé") == "\ufeffé"
    assert clean("\ud83d\ude00") == "😀"
    assert clean("a\ud83db") == "a\ufffdb"
    assert clean("\ude00\ud83d") == "\ufffd\ufffd"
    assert clean("end\ud83d") == "end\ufffd"


@given(st.text(alphabet=st.sampled_from("aé😀\ufeff\ud83d\ude00"), max_size=12))
def test_every_text_can_be_sent_after_cleaning_and_nothing_else_is_touched(text):
    cleaned = clean(text)
    cleaned.encode()
    assert clean(cleaned) == cleaned
    joined = text.replace("\ud83d\ude00", "😀")
    assert cleaned == "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in joined)
