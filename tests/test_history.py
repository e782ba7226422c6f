"""What the model is shown of a session, and what it is not."""

import pytest

from gateway_trio.agents import HistoryItem
from gateway_trio.core.event_log import Log
from gateway_trio.core.events import Change, Kind, Message, Prompt, Update
from gateway_trio.core.history import NEW_CONVERSATION
from gateway_trio.history import Past, last_prompt


def history_of(log, *, before=None):
    return tuple(Past(log, before=before))


def user(text):
    return HistoryItem("user", text)


def said(text, *, interrupted=False):
    return HistoryItem("assistant", text, interrupted=interrupted)


class Session:
    """Writes a log as turns and execs do."""

    def __init__(self, keep_bytes=10**9):
        self.log = Log(keep_bytes)

    def queue(self, owner, text, *, lane="turn", replaces=None):
        self.log.append(owner, Prompt(text, lane, replaces=replaces))
        self.change(owner, "queued", lane)

    def change(self, owner, state, lane="turn"):
        self.log.append(owner, Change(lane, owner, state, 1, ends=state not in ("queued", "running")))

    def say(self, owner, text, kind=Kind.ANSWER):
        self.log.append(owner, Message(kind))
        self.log.say(owner, text)

    def turn(self, owner, text, answer=None, outcome="completed", **more):
        self.queue(owner, text, **more)
        self.change(owner, "running", more.get("lane", "turn"))
        if answer is not None:
            self.say(owner, answer, Kind.OUTPUT if more.get("lane") == "exec" else Kind.ANSWER)
        self.change(owner, outcome, more.get("lane", "turn"))


def test_an_empty_session_has_no_history():
    assert history_of(Log(1)) == ()
    assert last_prompt(Log(1)) is None


@pytest.mark.parametrize("read_before", [False, True])
def test_it_is_a_sequence_and_stands_once_it_was_read(read_before):
    session = Session()
    session.turn("a", "one", "1")
    session.turn("b", "two")
    session.turn("c", "three", "3")
    past, wanted = Past(session.log), [user("one"), said("1"), user("two"), user("three"), said("3")]
    if read_before:
        assert len(past) == 5
    for at in range(-6, 7):
        assert list(past[at:]) == wanted[at:]
    assert (past[0], past[-1], past[1:3], past[-2:4]) == (wanted[0], wanted[-1], tuple(wanted[1:3]), (wanted[3],))
    assert list(reversed(past)) == wanted[::-1]
    session.turn("d", "four")
    assert list(past) == wanted, "who reads it again finds the same"


def test_prompts_and_answers_in_the_order_in_which_they_ran():
    session = Session()
    session.queue("a", "first")
    session.queue("b", "second")
    session.queue("c", "urgent")
    for owner in "acb":
        session.change(owner, "running")
        session.say(owner, f"answer {owner}")
        session.change(owner, "completed")
    assert history_of(session.log) == (
        *(user("first"), said("answer a")),
        *(user("urgent"), said("answer c")),
        *(user("second"), said("answer b")),
    )


def test_an_answer_of_several_messages_is_one():
    session = Session()
    session.queue("a", "go")
    session.change("a", "running")
    session.say("a", "before ")
    session.log.append("a", Update({"sessionUpdate": "tool_call"}))
    session.say("a", "a thought", Kind.THOUGHT)
    session.say("a", "after")
    session.change("a", "completed")
    assert history_of(session.log) == (user("go"), said("before after"))


@pytest.mark.parametrize("outcome", ["cancelled", "interrupted", "failed"])
def test_after_a_cut_the_words_are_there_once_and_the_partial_answer_is_marked(outcome):
    """Case 48."""
    session = Session()
    session.turn("a", "tell me", "It is", outcome)
    session.turn("b", "nothing said", None, outcome)
    session.queue("c", "go on")
    session.change("c", "running")
    assert history_of(session.log, before="c") == (
        user("tell me"),
        said("It is", interrupted=True),
        user("nothing said"),
    )


def test_the_one_that_asks_is_left_out_and_so_is_what_waits():
    session = Session()
    session.turn("a", "one", "1")
    session.queue("b", "two")
    session.change("b", "running")
    session.queue("c", "three")
    assert history_of(session.log, before="b") == (user("one"), said("1"))
    session.change("c", "cancelled")
    assert history_of(session.log, before="b") == (user("one"), said("1")), "it never ran"


def test_execs_are_seen_by_no_model():
    """Case 3."""
    session = Session()
    session.turn("a", "hi", "hello")
    session.turn("e", "/note buy milk", "noted", lane="exec")
    assert history_of(session.log) == (user("hi"), said("hello"))
    assert last_prompt(session.log)[0] == "a"


def test_what_was_run_again_is_there_once():
    session = Session()
    session.turn("a", "try", "fail", "failed")
    session.turn("b", "try", "fail again", "interrupted", replaces="a")
    session.turn("c", "try", "done", replaces="b")
    assert history_of(session.log) == (user("try"), said("done"))
    assert last_prompt(session.log) == ("c", Prompt("try", "turn", replaces="b"))


def test_the_one_that_was_interrupted_is_run_again_and_not_what_waited_behind_it():
    session = Session()
    session.turn("z", "before")
    session.queue("a", "slow")
    session.change("a", "running")
    for waiting in "bcd":
        session.queue(waiting, waiting)
    session.change("a", "interrupted")
    session.change("c", "interrupted")  # stale
    assert last_prompt(session.log)[0] == "c", "the newest that was interrupted"
    for waiting in "bd":
        session.change(waiting, "running")
        session.change(waiting, "completed")
    assert last_prompt(session.log)[0] == "c"
    session.turn("e", "c", replaces="c")
    assert last_prompt(session.log)[0] == "e", "something was asked since"


def test_of_those_that_were_interrupted_it_is_the_newest_whichever_was_told_last():
    session = Session()
    session.queue("a", "slow")
    session.queue("b", "waits")
    session.change("b", "interrupted")
    session.change("a", "interrupted")
    assert last_prompt(session.log)[0] == "b"
    session.change("gone", "interrupted")  # its prompt is not in memory any more
    assert last_prompt(session.log)[0] == "b"


def test_one_that_runs_again_leaves_out_what_it_replaces():
    session = Session()
    session.turn("a", "try", "fail", "failed")
    session.queue("b", "try", replaces="a")
    session.change("b", "running")
    assert history_of(session.log, before="b") == ()


def test_a_retry_that_never_ran_replaces_nothing():
    session = Session()
    session.turn("a", "try", "part", "interrupted")
    session.queue("b", "try", replaces="a")
    session.change("b", "cancelled")
    assert history_of(session.log) == (user("try"), said("part", interrupted=True))


def test_a_new_conversation_begins_empty():
    session = Session()
    session.turn("a", "old", "x")
    session.log.append("n", Update(NEW_CONVERSATION))
    assert history_of(session.log) == ()
    session.turn("b", "new", "y")
    assert history_of(session.log) == (user("new"), said("y"))


def test_what_the_log_does_not_keep_any_more_is_there_and_so_is_what_retry_runs():
    session = Session(keep_bytes=2000)
    session.turn("a", "my name is Ann", "hello")
    for number in range(20):
        session.turn(f"e{number}", "/big", "x" * 1000, lane="exec")
    assert session.log.get(1) is None
    assert history_of(session.log) == (user("my name is Ann"), said("hello"))
    assert last_prompt(session.log) == ("a", Prompt("my name is Ann", "turn"))


def test_what_is_more_than_the_history_keeps_is_left_out():
    session = Session(keep_bytes=1000)
    session.turn("a", "old", "x" * 50)
    session.turn("b", "new", "y")
    assert history_of(session.log) == (user("new"), said("y"))
