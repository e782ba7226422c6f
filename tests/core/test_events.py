"""What an entry is taken to cost in memory: its text, and what its body holds."""

import pytest

from gateway_trio.core.events import Change, Entry, Kind, Message, Prompt, Update
from gateway_trio.core.permission import ALLOW_OR_REJECT, Answered, Asked, Decision
from gateway_trio.core.text import Text


def cost(body):
    return Entry(1, "t", body).bytes


BARE = cost(Change("turn", "t", "running", 1, ends=False))


@pytest.mark.parametrize(
    ("body", "more"),
    [
        (Prompt("x" * 1000, "turn"), 1000),
        (Prompt("", "turn", ({"type": "text", "text": "x" * 1000},)), 1000),
        (Update({"title": "x" * 1000}), 1000),
        (Asked("p", {"title": "x" * 1000}, ALLOW_OR_REJECT), 1000),
    ],
    ids=["text", "blocks", "update", "request"],
)
def test_what_a_body_holds_counts(body, more):
    assert more <= cost(body) - BARE <= more + 500


@pytest.mark.parametrize(
    "body", [Message(Kind.ANSWER), Answered("p", Decision("selected", ALLOW_OR_REJECT[0], "ann"))]
)
def test_what_holds_little_costs_what_a_change_does(body):
    assert cost(body) == BARE > 0


def test_a_text_costs_its_bytes_as_it_grows():
    entry = Entry(1, "t", Message(Kind.ANSWER), text=Text("abc"))
    assert entry.bytes == BARE + 3
    entry.text.append("é😀")
    assert entry.bytes == BARE + 9
