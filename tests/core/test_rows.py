"""An event's body and text come back from what a database keeps of them as they were."""

import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_trio.core.events import Change, Kind, Message, Prompt, Update
from gateway_trio.core.permission import Answered, Asked, Decision, OptionKind, PermissionOption
from gateway_trio.core.rows import dump_body, dump_text, load_body, load_text

# Texts may hold NUL, and half a surrogate pair.
TEXTS = st.text(st.characters(codec=None, exclude_categories=())) | st.just("\ud800") | st.just("a\0b")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
PROMPTS = st.builds(
    Prompt,
    TEXTS,
    st.sampled_from(["turn", "exec"]),
    st.lists(JSON, max_size=3).map(tuple),
    TEXTS,
    st.none() | TEXTS,
)
CHANGES = st.builds(
    Change, st.sampled_from(["turn", "exec"]), TEXTS, TEXTS, st.integers(0), st.booleans(), st.none() | TEXTS,
    st.none() | TEXTS, st.none() | st.integers(0), JSON, st.none() | TEXTS,
)  # fmt: skip
OPTIONS = st.builds(PermissionOption, TEXTS, TEXTS, st.sampled_from(get_args(OptionKind)))
ASKED = st.builds(Asked, TEXTS, st.dictionaries(TEXTS, JSON), st.lists(OPTIONS, max_size=3).map(tuple))
DECISIONS = st.builds(Decision, st.sampled_from(["selected", "lapsed"]), st.none() | OPTIONS, st.none() | TEXTS)
BODIES = st.one_of(
    PROMPTS,
    CHANGES,
    ASKED,
    st.builds(Answered, TEXTS, DECISIONS),
    st.builds(Message, st.sampled_from(Kind)),
    st.builds(Update, JSON),
)


@given(BODIES)
def test_a_body_comes_back_as_it_was(body):
    kind, rest = dump_body(body)
    rest.encode()  # SQLite takes it
    assert load_body(kind, rest) == body


@given(TEXTS)
def test_a_text_comes_back_as_it_was(text):
    stored = dump_text(text)
    assert load_text(stored) == text
    if isinstance(stored, str):
        stored.encode()


def test_what_has_its_default_takes_no_room():
    assert dump_body(Prompt("hi", "turn")) == ("prompt", '{"text":"hi","lane":"turn"}')
    assert dump_body(Prompt("é", "turn", ({"a": 1},)))[1] == '{"text":"é","lane":"turn","blocks":[{"a":1}]}'
    assert dump_body(Message(Kind.OUTPUT)) == ("message", "output")
    ended = Change("turn", "t1", "completed", 1, ends=True)
    assert dump_body(ended)[1] == '{"work":"turn","id":"t1","state":"completed","seq":1,"ends":true}'


def test_numbers_that_are_none_come_back_too():
    assert math.isnan(load_body(*dump_body(Update(math.nan))).data)


def test_what_is_no_json_and_a_kind_that_there_is_not_are_errors():
    with pytest.raises(TypeError):
        dump_body(Update(object()))
    with pytest.raises(ValueError, match="poem"):
        load_body("poem", "{}")


ALLOW = PermissionOption("a", "Allow", "allow_once")


@pytest.mark.parametrize(
    "body",
    [
        Asked("p1", {"title": "rm"}, (ALLOW,)),
        Answered("p1", Decision("selected", ALLOW, "ann")),
        Answered("p1", Decision("lapsed")),
    ],
)
def test_a_permission_request_and_its_answer_come_back(body):
    assert load_body(*dump_body(body)) == body
