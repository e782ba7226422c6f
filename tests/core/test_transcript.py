import pytest

from gateway_trio.core.transcript import LINE_CHARS, Transcript, notice
from gateway_trio.core.updates import (
    Back,
    Gap,
    NewConversation,
    Notice,
    Option,
    Permission,
    Skipped,
    State,
    Text,
    Tool,
)


def said(text, at=0, seq=1, owner="t", kind="answer"):
    return Text(kind, owner, seq, at, text)


def ended(state="completed", owner="t", work="turn", **more):
    return State(work, owner, 9, state, **more)


@pytest.fixture
def transcript():
    return Transcript()


def test_a_line_is_shown_when_it_is_complete(transcript):
    assert transcript.take(said("one\ntw")) == ["one"]
    assert transcript.growing() == "tw"
    assert transcript.take(said("o\n", at=6)) == ["two"]
    assert transcript.growing() == ""
    assert transcript.take(said("three", at=8)) == []
    assert transcript.take(ended()) == ["three"]
    assert transcript.growing() == ""
    assert transcript.take(ended()) == []


def test_two_messages_do_not_mix(transcript):
    transcript.take(said("ans"))
    assert transcript.take(said("out\nput", seq=2, owner="x", kind="output")) == ["out"]
    assert transcript.growing() == "put"
    transcript.take(said("wer", at=3))
    assert transcript.growing() == "answer"
    assert transcript.take(ended(owner="x", work="exec")) == ["put"]
    assert transcript.take(ended()) == ["answer"]


def test_the_next_message_of_an_owner_ends_the_one_before(transcript):
    transcript.take(said("hm", kind="thought"))
    assert transcript.growing() == "· hm"
    assert transcript.take(said("yes", seq=2)) == ["· hm"]
    assert transcript.growing() == "yes"


def test_what_is_replaced_is_told(transcript):
    transcript.take(said("abc"))
    assert transcript.take(said("x", at=1)) == ["abc", notice("that was not right; from here on it is")]
    assert transcript.growing() == "x"
    transcript.take(said("\n", at=2))
    assert transcript.take(said("y", at=0)) == [notice("that was not right; from here on it is")]


def test_text_that_is_lost_is_said(transcript):
    transcript.take(said("one\ntwo"))
    assert transcript.take(said("", at=5)) == ["two", notice("the last words of that are lost")]
    assert transcript.growing() == ""


def test_a_long_line_is_broken_at_a_blank(transcript):
    lines = transcript.take(said("word " * 1000))
    assert lines == ["word " * (LINE_CHARS // 5)] * 2
    assert transcript.growing() == "word " * 200
    transcript = Transcript()
    assert transcript.take(said("x" * (LINE_CHARS + 3))) == ["x" * LINE_CHARS]
    assert transcript.growing() == "xxx"


def test_others_prompts_are_shown_and_ones_own_are_not(transcript):
    transcript.own.append("mine")
    assert transcript.take(said("mine", kind="prompt")) == []
    assert transcript.take(said("mine", seq=2, kind="prompt")) == []
    assert transcript.growing() == "> mine", "somebody else's, the second time"
    assert transcript.own == []


@pytest.mark.parametrize(
    ("update", "lines"),
    [
        (ended("queued", position=0), []),
        (ended("queued", position=2), ["· queued, 2 before it"]),
        (ended("running"), []),
        (ended("cancelled", reason="cancelled by its user"), ["· cancelled"]),
        (ended("interrupted", reason="the gateway went down"), ["· interrupted: the gateway went down"]),
        (ended("failed", reason="internal", message="oh"), ["· failed: oh"]),
        (ended("failed"), ["· failed"]),
        (ended("failed", work="exec"), []),
        (Tool("t", 2, "1", "look \x1b[1m", "pending", {}), ["· look [1m"]),
        (Tool("t", 2, "1", "look", "completed", {}), []),
        (Tool("t", 2, "1", None, "in_progress", {}), []),
        (Tool("t", 2, "1", None, "failed", {}), ["· that failed"]),
        (Notice("a\nb\x1b"), ["a", "b"]),
        (NewConversation(3), ["· a new conversation"]),
        (Gap(1, 2), ["· something was said here that is not kept any more"]),
        (Skipped(3), ["· 3 lines came too fast to be shown"]),
        (
            Permission(1, "Delete it", (Option("y", "Yes", "allow_once"), Option("n", "No", "reject_once")), {}),
            ["· may it: Delete it? /allow or /deny (Yes, No)"],
        ),
        (Back(), []),
    ],
)
def test_what_is_no_text(transcript, update, lines):
    assert transcript.take(update) == lines


def test_what_is_incomplete_can_be_had(transcript):
    transcript.take(said("abc"))
    transcript.take(said("def\n", seq=2, owner="x"))
    assert transcript.flush() == ["abc"]
    assert transcript.flush() == []
    assert transcript.growing() == ""
