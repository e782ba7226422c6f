"""What a command wrote becomes the same text however the reads cut it, bounded and without secrets."""

import itertools
import re
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_trio.core.output import LONGEST_ESCAPE, Kept, OutputFilter

SECRETS = (
    "hunter2hunter2",
    "hunter2hunter2-and-more",
    "sk-0123456789",
    "two\nlines-of-it",
    "aaaaaaaab",
    "aaaaaaaaa",
)


def filtered(*pieces, secrets=()):
    out = OutputFilter(secrets)
    return "".join([*(out.feed(p) for p in pieces), out.finish()])


# --- the filter -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"plain\n\ttext", "plain\n\ttext"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        ("æøå €😀".encode(), "æøå €😀"),
        (b"cut \xe2\x82", "cut \ufffd"),
        (b"a\r\nb\rc\r", "a\nb\nc\n"),
        (b"a\r\r\nb", "a\n\nb"),
        (b"\x1b[1;31mred\x1b[0m", "red"),
        (b"\x1b[?25l\x1b[2 qx\x1b[38:2:1:2:3my", "xy"),
        (b"\x1b]0;title\x07x\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\y", "xlinky"),
        (b"\x1bPq#0;2\x1b\\x\x1b_app\x1b\\y\x1b^p\x1b\\z\x1bXs\x1b\\!", "xyz!"),
        (b"\x1b(Bx\x1b=y\x1b7z\x1bc", "xyz"),
        ("\x9b31mred\x9d0;title\x9cx\x90q\x9cy".encode(), "redxy"),
        (b"\x00a\x07b\x08c\x0bd\x0ce\x7ff\x85", "abcdef\ufffd"),
        ("\x85a\x84b\x9cc".encode(), "abc"),
        (b"\x1b[12\nx", "12\nx"),  # no sequence after all
        (b"\x1b]0;title\x1b[31mx", "x"),  # a string ends where another sequence begins
        (b"\x1b]0;title\x18x", "x"),
        (b"\x1b\x1b[1mx", "x"),
        (b"x\x1b", "x"),
        (b"x\x1b[12", "x12"),  # the output ends in it
        (b"x\x1b]0;who", "x0;who"),
        (b"", ""),
    ],
)
def test_what_is_no_text_vanishes(raw, text):
    assert filtered(raw) == text
    assert filtered(*(raw[i : i + 1] for i in range(len(raw)))) == text


def test_a_string_is_hidden_up_to_the_limit_and_is_text_beyond():
    body = b"x" * LONGEST_ESCAPE
    assert filtered(b"\x1b]" + body + b"\x07end") == "end"
    assert filtered(b"\x1b]" + body + b"y\x07end") == body.decode() + "yend"
    assert filtered(b"\x1b[" + b"1" * LONGEST_ESCAPE + b"mend") == "end"
    assert filtered(b"\x1b[" + b"1" * (LONGEST_ESCAPE + 1) + b"mend") == "1" * (LONGEST_ESCAPE + 1) + "mend"


def test_an_endless_string_is_not_held():
    out = OutputFilter(())
    out.feed(b"\x1b]")
    shown = sum(len(out.feed(b"x" * 1000)) for _ in range(100))
    assert shown >= 100_000 - LONGEST_ESCAPE - 1000


@pytest.mark.parametrize(
    "unit",
    [
        b"\x1b]",
        b"\xc2\x9d",
        b"\x1b[",
        b"\x1b[1",
        b"\x1b",
        b"\x1b]x\x1b",
        b"\r",
        b"\x1b(",
        b"y\n",
        b"\xc2\x90 \x1b",
        b"sk-01234",
        b"\x00",
    ],
)
def test_a_megabyte_of_anything_is_taken_and_little_held_back(unit):
    data = unit * (2**20 // len(unit))  # were it quadratic, this would take minutes
    out = OutputFilter(("sk-0123456789abcdef" * 20,))
    given = sum(len(out.feed(data[i : i + 65536])) for i in range(0, len(data), 65536))
    assert len(out.finish()) <= LONGEST_ESCAPE + 400
    assert given <= len(data)


pieces = st.lists(
    st.one_of(
        st.binary(max_size=6),
        st.sampled_from(
            [
                b"\x1b", b"\x1b[", b"\x1b]", b"31m", b"\x07", b"\\", b"\x1b\\", b"\r", b"\n", b"\r\n", "\x9b".encode(), "\x9d".encode(),
                "\x9c".encode(), "€".encode(), b"\xe2\x82", b"x" * (LONGEST_ESCAPE - 1), b"1" * LONGEST_ESCAPE, b" " * 8, b"(",
                *(s.encode() for s in SECRETS), *(s[:5].encode() for s in SECRETS), *(s[5:].encode() for s in SECRETS), b"a",
            ]
        ),
    ),
    max_size=12,
).map(b"".join)  # fmt: skip


@settings(max_examples=2 * settings.default.max_examples)
@given(pieces, st.lists(st.integers(0, 100_000), max_size=8))
def test_any_split_gives_the_same_text(data, cuts):
    at = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    split = [data[a:b] for a, b in itertools.pairwise(at)]
    whole = filtered(data, secrets=SECRETS)
    assert filtered(*split, secrets=SECRETS) == whole
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", whole)


@settings(max_examples=2 * settings.default.max_examples)
@given(pieces)
def test_bytewise_is_the_same_too(data):
    assert filtered(*(data[i : i + 1] for i in range(len(data))), secrets=SECRETS) == filtered(
        data, secrets=SECRETS
    )


@given(st.sampled_from(SECRETS), st.integers(1, 30))
def test_a_secret_is_never_shown(secret, cut):
    raw = f"key={secret};".encode()
    text = filtered(raw[:cut], raw[cut:], secrets=SECRETS)
    assert text == "key=***;"


def test_a_secret_is_found_behind_escapes_and_other_newlines():
    assert filtered(b"hunter2\x1b[1mhunter2", secrets=SECRETS) == "***"
    assert filtered(b"two\r\nlines-of-it", secrets=SECRETS) == "***"
    assert filtered(b"two\nlines-of-it", secrets=("two\r\nlines-of-it",)) == "***"


def test_the_longest_secret_wins_and_a_beginning_is_text_in_the_end():
    assert filtered(b"hunter2hunter2-and-more!", secrets=SECRETS) == "***!"
    assert filtered(b"hunter2hunter2-and-mo", secrets=SECRETS) == "***-and-mo"
    assert filtered(b"aaaaaaaaaaaaaaaaaa aaaaaaaab", secrets=SECRETS) == "****** ***"
    assert filtered(b"sk-012345678", secrets=SECRETS) == "sk-012345678"


def test_what_seemed_to_begin_inside_a_secret_did_not():
    out = OutputFilter(("abcdefgh", "ghijklmn"))
    assert out.feed(b"-abcdefgh") == "-***"
    assert out.feed(b"ijklmn") == "ijklmn"


def test_short_secrets_are_ignored():
    assert filtered(b"true 1234567 12345678", secrets=("true", "", "1234567", "12345678")) == "true 1234567 ***"


def test_an_ordinary_line_is_shown_at_once():
    out = OutputFilter(SECRETS)
    assert out.feed(b"started, not sk-9\n") == "started, not sk-9\n"
    assert out.feed(b"sk-0123") == ""
    assert out.feed(b"!") == "sk-0123!"


# --- what is kept ---------------------------------------------------------------------------------


@given(st.lists(st.text(max_size=30), max_size=30), st.integers(0, 40), st.integers(0, 40))
def test_head_and_tail_are_kept_and_the_rest_is_counted(texts, head, tail):
    kept = Kept(head, tail)
    shown = "".join(map(kept.add, texts))
    everything = "".join(texts)
    rest = everything[head:]
    lost = max(0, len(rest) - tail)
    assert shown == everything[:head]
    assert kept.cut == lost
    line = f"\n[… {lost} characters left out …]\n" if lost else ""
    assert kept.finish() == line + rest[lost:]


def test_memory_is_bounded_also_with_small_pieces():
    kept = Kept()
    tracemalloc.start()
    for i in range(300_000):
        kept.add(f"{i % 100:02}")
    for _ in range(100):
        kept.add("x" * 65536)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000
    assert kept.cut == 600_000 + 100 * 65536 - 2 * 32 * 1024
