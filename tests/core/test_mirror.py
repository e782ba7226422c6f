"""Updates in, what is new out: whatever is cut and however it comes back, it adds up."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.logs import say
from gateway_trio.core.cursor import Cursor
from gateway_trio.core.event_log import Log
from gateway_trio.core.events import Change, Kind, Prompt
from gateway_trio.core.events import Update as Complete
from gateway_trio.core.mirror import Mirror
from gateway_trio.core.updates import Gap, NewConversation, Notice, Other, Plan, State, Text, Tool
from gateway_trio.dialects.acp_frames import ROOM, frames_of


def chunk(seq, at, text, owner="t", kind="agent_message_chunk"):
    meta = {"seq": seq, "execId" if owner.startswith("x") else "turnId": owner, "at": at}
    return {"sessionUpdate": kind, "content": {"text": text}, "_meta": {"gateway-trio": meta}}


def state(seq, name, owner="t"):
    told = {"id": owner, "state": name}
    return {"sessionUpdate": "session_info_update", "_meta": {"gateway-trio": {"seq": seq, "turn": told}}}


def tool(seq, owner="t"):
    meta = {"gateway-trio": {"seq": seq, "turnId": owner}}
    return {"sessionUpdate": "tool_call", "toolCallId": "1", "title": "look", "_meta": meta}


def answer(seq, at, text, owner="t"):
    return Text("answer", owner, seq, at, text)


def test_a_text_grows():
    mirror = Mirror()
    assert mirror.apply(chunk(1, 0, "ab")) == [answer(1, 0, "ab")]
    assert mirror.apply(chunk(1, 2, "cd")) == [answer(1, 2, "cd")]
    assert mirror.texts("t") == [answer(1, 0, "abcd")]
    assert mirror.texts("other") == []
    assert (mirror.last, mirror.after) == (1, 1)


def test_what_comes_again_is_not_told_again():
    mirror = Mirror()
    mirror.apply(chunk(1, 0, "abcd"))
    mirror.resume()
    assert mirror.apply(chunk(1, 0, "ab")) == []
    assert mirror.apply(chunk(1, 2, "cdef")) == [answer(1, 4, "ef")]
    assert mirror.apply(state(2, "completed"))[0].ends


def test_an_event_without_a_class_of_its_own_is_told_once_too():
    asked = {"sessionUpdate": "session_info_update"}
    asked["_meta"] = {"gateway-trio": {"seq": 2, "turnId": "t", "permission": {"id": "p", "state": "asked"}}}
    mirror = Mirror()
    mirror.apply(chunk(1, 0, "ab"))
    assert mirror.apply(asked) == [Other(asked, 2, "t")]
    assert (mirror.last, mirror.after) == (2, 2)
    mirror.resume()
    assert mirror.apply(asked) == []


def test_what_differs_is_told_from_there_on():
    mirror = Mirror()
    mirror.apply(chunk(1, 0, "abcdefgh"))
    mirror.resume()
    assert mirror.apply(chunk(1, 0, "abXY")) == [answer(1, 2, "XY")]
    assert mirror.apply(chunk(1, 4, "Z")) == [answer(1, 4, "Z")]
    assert mirror.texts("t") == [answer(1, 0, "abXYZ")]


@pytest.mark.parametrize("follows", [state(2, "interrupted"), tool(2), chunk(2, 0, "more")])
def test_a_text_that_became_shorter_is_cut_when_its_owner_goes_on(follows):
    mirror = Mirror()
    mirror.apply(chunk(1, 0, "abcd"))
    mirror.resume()
    assert mirror.apply(chunk(1, 0, "ab")) == []
    first, *_ = mirror.apply(follows)
    assert first == answer(1, 2, "")
    assert mirror.texts("t")[0] == answer(1, 0, "ab")


def test_what_another_owner_does_cuts_nothing():
    mirror = Mirror()
    mirror.apply(chunk(1, 0, "abcd"))
    mirror.resume()
    mirror.apply(chunk(1, 0, "ab"))
    assert len(mirror.apply(tool(2, "other"))) == 1
    assert mirror.apply(chunk(1, 2, "cd")) == []


def test_a_resume_that_was_cut_cuts_no_text():
    mirror = Mirror()
    mirror.apply(chunk(1, 0, "abcd"))
    mirror.resume()
    mirror.apply(chunk(1, 0, "ab"))
    mirror.resume()
    assert [type(u) for u in mirror.apply(state(2, "completed"))] == [State]


def test_a_number_comes_once():
    mirror = Mirror(last=4)
    assert mirror.apply(state(4, "running")) == []
    assert len(mirror.apply(state(5, "running"))) == 1
    assert mirror.apply(state(5, "running")) == []
    assert len(mirror.apply(tool(6))) == 1
    assert mirror.apply(tool(6)) == []
    plan = {"sessionUpdate": "plan", "entries": [], "_meta": {"gateway-trio": {"seq": 7, "turnId": "t"}}}
    assert mirror.apply(plan) == [Plan("t", 7, ())]
    new = {"sessionUpdate": "session_info_update", "_meta": {"gateway-trio": {"seq": 8, "newConversation": True}}}
    assert mirror.apply(new) == [NewConversation(8)]
    assert mirror.last == 8


@pytest.mark.parametrize("data", [{"sessionUpdate": "tool_call"}, {"sessionUpdate": "plan"}, {}])
def test_what_has_no_number_is_told(data):
    mirror = Mirror(last=4)
    assert len(mirror.apply(data)) == len(mirror.apply(data)) == 1
    assert mirror.last == 4


def test_a_notice_has_none():
    said = {"sessionUpdate": "agent_message_chunk", "content": {"text": "phase open"}}
    assert Mirror().apply(said) == [Notice("phase open")]


def test_a_loss_moves_the_last_number():
    mirror = Mirror()
    lost = {"sessionUpdate": "session_info_update", "_meta": {"gateway-trio": {"lost": {"from": 1, "to": 7}}}}
    assert mirror.apply(lost) == [Gap(1, 7)]
    assert mirror.after == 7


def test_a_hole_in_a_text_is_told():
    mirror = Mirror()
    mirror.apply(chunk(1, 0, "ab"))
    assert mirror.apply(chunk(1, 5, "fg")) == [Gap(1, 1), answer(1, 5, "fg")]
    assert mirror.apply(chunk(1, 7, "h")) == [answer(1, 7, "h")]
    assert mirror.texts("t") == [answer(1, 5, "fgh")]
    assert mirror.apply(chunk(1, 0, "abcdefgh")) == [Gap(1, 1), answer(1, 0, "abcdefgh")]


def test_after_the_end_only_the_next_update_forgets():
    mirror = Mirror()
    mirror.apply(chunk(1, 0, "ab"))
    mirror.apply(chunk(2, 0, "cd", owner="x1"))
    mirror.apply(state(3, "completed"))
    assert mirror.texts("t") == [answer(1, 0, "ab")]
    mirror.apply({})
    assert mirror.texts("t") == []
    assert mirror.texts("x1") == [Text("output", "x1", 2, 0, "cd")]


def test_a_prompt_is_whole_when_something_follows():
    mirror = Mirror()
    mirror.apply(chunk(1, 0, "ab", kind="user_message_chunk"))
    assert mirror.after == 0
    mirror.resume()
    assert mirror.apply(chunk(1, 0, "abcd", kind="user_message_chunk")) == [Text("prompt", "t", 1, 2, "cd")]
    mirror.apply(state(2, "queued"))
    assert mirror.after == 2
    assert mirror.texts("t") == []


def test_an_older_message_does_not_move_it_back():
    mirror = Mirror()
    mirror.apply(chunk(1, 0, "ab"))
    mirror.apply(chunk(2, 0, "hm", owner="x", kind="user_message_chunk"))
    mirror.apply(chunk(1, 2, "c"))
    assert (mirror.last, mirror.after) == (2, 1)


def test_nothing_is_known_after_a_reset():
    mirror = Mirror()
    mirror.apply(chunk(9, 0, "abcd"))
    mirror.apply(state(10, "completed"))
    mirror.reset(4)
    assert mirror.after == 4
    assert mirror.apply(chunk(3, 0, "abcd")) == [answer(3, 0, "abcd")], "a message that grows"
    assert mirror.apply(chunk(9, 0, "ab")) == [answer(9, 0, "ab")]


def test_what_is_kept_is_bounded():
    mirror = Mirror(keep_chars=10)
    mirror.apply(chunk(1, 0, "a" * 8))
    mirror.apply(chunk(2, 0, "b" * 6))
    assert mirror.texts("t") == [answer(2, 0, "b" * 6)]
    mirror.apply(chunk(2, 6, "b" * 20))
    assert mirror.texts("t") == [answer(2, 0, "b" * 26)], "the newest stays"
    mirror.resume()
    assert mirror.apply(chunk(1, 0, "a" * 8)) == [answer(1, 0, "a" * 8)], "forgotten, so told again"


# --- any cut and resume rebuilds the same -------------------------------------------------------------


class Reader:
    """Who uses the library: folds what it is told."""

    def __init__(self):
        self.texts: dict[int, str] = {}
        self.events: list[int] = []
        self.prompts: dict[int, str] = {}

    def take(self, update):
        match update:
            case Text(kind, _, seq, at, text):
                texts = self.prompts if kind == "prompt" else self.texts
                assert at <= len(texts.get(seq, "")), "there is no hole"
                texts[seq] = texts.get(seq, "")[:at] + text
            case State() | Tool():
                self.events.append(update.seq)
            case _:
                raise AssertionError(update)


OWNERS = ["t1", "t2", "x1"]
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from(OWNERS), st.text("abc", min_size=1, max_size=9)),
        st.tuples(st.just("tool"), st.sampled_from(OWNERS)),
        st.tuples(st.just("end"), st.sampled_from(OWNERS)),
        st.tuples(st.just("prompt"), st.sampled_from([3, ROOM + 1, 2 * ROOM])),
        st.tuples(st.just("pull"), st.integers(1, 6), st.integers(1, 8)),
        st.tuples(st.just("cut"), st.integers(0, 3)),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(_steps)
def test_any_cut_and_resume_rebuilds_the_same(steps):
    log, mirror, reader = Log(10**9), Mirror(), Reader()
    cursor, ended, flying = Cursor(log, lambda _: True), set(), []

    def deliver(count):
        for frame in flying[:count]:
            for update in mirror.apply(json.loads(frame)["params"]["update"]):
                reader.take(update)
        del flying[:count]

    def pull(room):
        piece = cursor.pull(room)
        if piece is not None:
            flying.extend(frames_of("s", piece))
        return piece

    for step in [*steps, *(("end", owner) for owner in OWNERS)]:
        match step:
            case ("say", owner, text) if owner not in ended:
                say(log, owner, text, Kind.OUTPUT if owner == "x1" else Kind.ANSWER)
            case ("tool", owner) if owner not in ended:
                log.append(owner, Complete({"sessionUpdate": "tool_call", "toolCallId": "1", "title": "t"}))
            case ("end", owner) if owner not in ended:
                ended.add(owner)
                log.append(owner, Change("turn", owner, "completed", 1, ends=True))
            case ("prompt", size):
                log.append(f"p{log.last}", Prompt("p" * size, "turn"))
            case ("pull", count, room):
                for _ in range(count):
                    pull(room)
                deliver(len(flying))
            case ("cut", count):
                deliver(count)
                flying.clear()
                mirror.resume()
                cursor = Cursor.resumed(log, lambda _: True, mirror.after)
    while pull(5) is not None:
        pass
    deliver(len(flying))
    entries = list(log)
    assert reader.texts == {e.number: str(e.text) for e in entries if len(e.text)}
    assert reader.events == [e.number for e in entries if isinstance(e.body, Change | Complete)]
    assert reader.prompts == {e.number: e.body.text for e in entries if isinstance(e.body, Prompt)}
    assert mirror.last == log.last
