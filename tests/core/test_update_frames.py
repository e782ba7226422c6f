import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_trio.core import updates
from gateway_trio.core.update_frames import permission, read
from gateway_trio.core.updates import (
    Command,
    Commands,
    Gap,
    NewConversation,
    Notice,
    Option,
    Other,
    Plan,
    State,
    Text,
    Tool,
    Usage,
)


def frame(kind, ours=None, **more):
    return {"sessionUpdate": kind, **more, **({} if ours is None else {"_meta": {"gateway-trio": ours}})}


def said(kind, text, **ours):
    return frame(kind, ours or None, content={"type": "text", "text": text}, messageId="m")


@pytest.mark.parametrize(
    ("data", "update"),
    [
        (said("agent_message_chunk", "hi", seq=4, turnId="t", at=2), Text("answer", "t", 4, 2, "hi")),
        (said("agent_thought_chunk", "hm", seq=4, turnId="t", at=0), Text("thought", "t", 4, 0, "hm")),
        (said("agent_message_chunk", "up", seq=4, execId="x", at=0), Text("output", "x", 4, 0, "up")),
        (said("user_message_chunk", "/up", seq=1, execId="x", at=0), Text("prompt", "x", 1, 0, "/up")),
        (said("agent_message_chunk", "phase open"), Notice("phase open")),
        (frame("usage_update", used=3, size=7), Usage(3, 7)),
        (
            frame("plan", {"seq": 3, "turnId": "t"}, entries=[{"content": "look"}]),
            Plan("t", 3, ({"content": "look"},)),
        ),
        (frame("session_info_update", {"lost": {"from": 3, "to": 17}}), Gap(3, 17)),
        (frame("session_info_update", {"seq": 3, "newConversation": True}), NewConversation(3)),
        (frame("session_info_update", title="t"), Other(frame("session_info_update", title="t"))),
        (frame("something_else"), Other(frame("something_else"))),
        (
            frame("something_else", {"seq": 3, "execId": "x"}),
            Other(frame("something_else", {"seq": 3, "execId": "x"}), 3, "x"),
        ),
        (
            frame("session_info_update", {"seq": 4, "turnId": "t", "permission": {}}),
            Other(frame("session_info_update", {"seq": 4, "turnId": "t", "permission": {}}), 4, "t"),
        ),
    ],
)
def test_an_update_is_read(data, update):
    assert read(data) == update


def test_a_tool_call_and_news_of_it():
    call = read(frame("tool_call", {"seq": 5, "turnId": "t"}, toolCallId="1", title="look", status="pending"))
    assert call == Tool("t", 5, "1", "look", "pending", {})
    news = read(frame("tool_call_update", {"seq": 6, "turnId": "t"}, toolCallId="1", status="completed"))
    assert news == Tool("t", 6, "1", None, "completed", {})
    assert news.data["toolCallId"] == "1"


@pytest.mark.parametrize("work", ["turn", "exec"])
def test_a_change_of_state(work):
    told = {"id": "t9", "key": "k", "seq": 1, "state": "queued", "reason": None, "position": 0}
    state = read(frame("session_info_update", {"seq": 2, work: told}))
    assert state == State(work, "t9", 2, "queued", "k", None, 0)
    assert state.data == told
    assert not state.ends


@pytest.mark.parametrize(("state", "ends"), [("running", False), ("completed", True), ("interrupted", True)])
def test_an_outcome_ends(state, ends):
    told = {"id": "t9", "state": state, "reason": "internal", "message": "oh"}
    found = read(frame("session_info_update", {"seq": 2, "turn": told}))
    assert (found.ends, found.reason, found.message, found.key) == (ends, "internal", "oh", None)


def test_commands():
    listed = [{"name": "a", "description": "b", "input": {"hint": "text"}}, {"name": "c", "description": ""}]
    assert read(frame("available_commands_update", availableCommands=listed)) == Commands(
        (Command("a", "b", "text"), Command("c", "", None))
    )


def test_a_permission_request():
    ask = {
        "sessionId": "s",
        "toolCall": {"toolCallId": "1", "title": "Delete it?"},
        "options": [{"optionId": "y", "name": "Yes", "kind": "allow_once"}],
    }
    asked = permission(7, ask)
    assert (asked.id, asked.title, asked.options) == (7, "Delete it?", (Option("y", "Yes", "allow_once"),))
    assert permission("p", {"toolCall": {"toolCallId": "1"}}).title == "1"


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)
_kinds = [
    "agent_message_chunk", "user_message_chunk", "tool_call", "plan", "usage_update", "available_commands_update",
    "session_info_update",
]  # fmt: skip
_ours = st.dictionaries(
    st.sampled_from(["seq", "at", "turnId", "execId", "turn", "exec", "lost"]), _json, max_size=4
)


@given(
    st.sampled_from(_kinds) | _json,
    _json | st.fixed_dictionaries({"gateway-trio": _json | _ours}),
    st.dictionaries(
        st.sampled_from(["content", "toolCallId", "title", "entries", "used", "availableCommands"]),
        _json,
        max_size=4,
    ),
)
def test_whatever_comes_is_read(kind, meta, more):
    assert isinstance(read({"sessionUpdate": kind, "_meta": meta, **more}), updates.Update)
    permission(kind, {"toolCall": meta, "options": more.get("entries")})
