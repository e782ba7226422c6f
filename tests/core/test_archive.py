"""Updates in, records out: each event once, texts whole, in order, in bounded room."""

import json

from hypothesis import given
from hypothesis import strategies as st

from gateway_trio.core.archive import Archive
from gateway_trio.core.mirror import Mirror
from gateway_trio.core.updates import Away, Gap, NewConversation, Other, Plan, State, Text, Tool


def said(seq, text, at=0, owner="t1", kind="answer"):
    return Text(kind, owner, seq, at, text)


def state(seq, name, owner="t1", work="turn", **more):
    return State(work, owner, seq, name, data={"id": owner, "seq": 1, "state": name, "key": None, **more})


def archived(*updates, **bounds):
    archive = Archive(**bounds)
    found = [record for update in updates for record in archive.take(update)]
    found += archive.end()
    assert archive.count == len(found)
    assert json.loads(json.dumps(found)) == found, "JSON has all of it"
    return found


def test_a_turn():
    records = archived(
        said(1, "que", kind="prompt"),
        said(1, "stion", at=3, kind="prompt"),
        state(2, "queued", position=0),
        said(4, "an"),
        said(4, "swer", at=2),
        state(5, "completed"),
    )
    assert records == [
        {"seq": 1, "kind": "prompt", "owner": "t1", "text": "question"},
        {
            "seq": 2,
            "kind": "turn",
            "owner": "t1",
            "state": "queued",
            "key": None,
            "reason": None,
            "prompt": 1,
        },
        {"seq": 4, "kind": "answer", "owner": "t1", "text": "answer"},
        {
            "seq": 5,
            "kind": "turn",
            "owner": "t1",
            "state": "completed",
            "key": None,
            "reason": None,
            "prompt": 1,
        },
    ]


def test_a_message_comes_as_soon_as_its_owner_goes_on_and_not_before():
    archive = Archive()
    assert archive.take(said(1, "a")) == []
    assert archive.take(state(2, "running", owner="x1", work="exec")) == [], "behind a message that may grow"
    assert [r["seq"] for r in archive.take(said(3, "b", kind="thought"))] == [1, 2]
    assert [r["seq"] for r in archive.take(state(4, "completed"))] == [3, 4]
    assert archive.end() == []


def test_a_state_has_its_place_in_the_queue_and_its_facts():
    facts = {"exitCode": 7, "seconds": 0.5}
    (queued, ended) = archived(
        State("turn", "t1", 2, "queued", key="k", position=3, data={"seq": 1}),
        state(3, "completed", owner="x1", work="exec", **facts),
    )
    assert (queued["key"], queued["position"], queued["prompt"]) == ("k", 3, 1)
    assert (ended["kind"], ended["owner"], ended["facts"]) == ("exec", "x1", facts)


def test_tools_plans_and_what_there_is_no_class_for():
    tool = {"sessionUpdate": "tool_call", "toolCallId": "c", "_meta": {}}
    asked = {"_meta": {"gateway-trio": {"permission": {"id": "p", "state": "asked"}}}}
    records = archived(
        said(1, "a"),
        Tool("t1", 2, "c", "look", None, tool),
        said(3, "b"),
        Plan("t1", 4, ({"content": "x"},)),
        said(5, "c"),
        Other(asked, 6, "t1"),
        Other({"sessionUpdate": "new"}, 7, "t1"),
        Other({"_meta": {"gateway-trio": {}}}, 8, "t1"),
        Other({"title": "no event"}),
        NewConversation(9),
        Away(None, "", 0.0),
    )
    assert [record["seq"] for record in records] == list(range(1, 10))
    assert records[1] == {
        "seq": 2, "kind": "tool", "owner": "t1", "tool": "c", "title": "look", "status": None,
        "data": {"sessionUpdate": "tool_call", "toolCallId": "c"},
    }  # fmt: skip
    assert records[3] == {"seq": 4, "kind": "plan", "owner": "t1", "entries": [{"content": "x"}]}
    assert records[5] == {
        "seq": 6,
        "kind": "permission",
        "owner": "t1",
        "permission": {"id": "p", "state": "asked"},
    }
    assert records[6] == {"seq": 7, "kind": "other", "owner": "t1", "data": {"sessionUpdate": "new"}}
    assert records[8] == {"seq": 9, "kind": "new_conversation", "owner": ""}


def test_what_is_lost_is_said():
    records = archived(Gap(1, 7), state(8, "running"), Gap(None, None))
    assert records[0] == {"seq": 1, "kind": "lost", "from": 1, "to": 7}
    assert len(records) == 2


def test_a_message_whose_beginning_is_lost_says_where_it_begins():
    (record,) = archived(said(4, "tail", at=100))
    assert (record["at"], record["text"], record["open"]) == (100, "tail", True)
    (record,) = archived(said(4, "head"), said(4, "far", at=50))
    assert (record["at"], record["text"]) == (50, "far")


def test_text_is_replaced_from_a_place_on():
    (record,) = archived(said(4, "abcdef"), said(4, "XY", at=2))
    assert record["text"] == "abXY"


def test_what_waits_for_a_message_is_bounded_in_number_and_size():
    others = [state(seq, "running", owner=f"x{seq}", work="exec") for seq in range(2, 30)]
    seqs = [r["seq"] for r in archived(said(1, "a"), *others, state(30, "completed"), most_waiting=10)]
    assert sorted(seqs) == list(range(1, 31))
    assert seqs != sorted(seqs), "those that were too many came before it"
    archive = Archive(most_chars=10)
    archive.take(said(1, "a"))
    archive.take(said(2, "long " * 5, owner="x", kind="output"))
    assert [r["seq"] for r in archive.take(state(3, "completed", owner="x"))] == [2], "as much as it takes"


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["say", "state"])), max_size=40), st.data())
def test_each_event_once_whole_and_in_order(events, data):
    """However the texts of several owners are cut and interleaved, as a cursor gives them."""
    texts, updates, frames = {}, [], []
    for number, (owner, what) in enumerate(events, start=1):
        if what == "state":
            frames.append(state(number, "running", owner=owner))
        else:
            texts[number] = data.draw(st.text(min_size=1, max_size=6))
            frames.append(number)
    for frame in frames:
        if isinstance(frame, int):
            text, owner = texts[frame], events[frame - 1][0]
            cut = data.draw(st.integers(0, len(text)))
            updates += [said(frame, text[:cut], owner=owner), said(frame, text[cut:], at=cut, owner=owner)]
        else:
            updates.append(frame)
    records = archived(*updates)
    assert [record["seq"] for record in records] == list(range(1, len(events) + 1))
    assert {record["seq"]: record["text"] for record in records if "text" in record} == texts


def test_it_reads_what_a_mirror_tells():
    mirror, archive = Mirror(), Archive()
    meta = {"gateway-trio": {"seq": 1, "turnId": "t", "at": 0}}
    chunk = {"sessionUpdate": "agent_message_chunk", "content": {"text": "hi"}, "_meta": meta}
    for update in mirror.apply(chunk):
        archive.take(update)
    assert archive.end() == [{"seq": 1, "kind": "answer", "owner": "t", "text": "hi", "open": True}]
