"""What an agent emits becomes an update that fits in a frame and that every client can read."""

import json

import pytest
from acp import schema

from gateway_trio.agents import Plan, Stop, TextDelta, ThoughtDelta, ToolCall, ToolUpdate, Usage
from gateway_trio.core.acp import update
from gateway_trio.core.jsonrpc import encode
from gateway_trio.emissions import UPDATE_BYTES, TooBig, to_update


@pytest.mark.parametrize(
    ("emission", "data"),
    [
        (
            ToolCall("c", "Read x"),
            {
                "sessionUpdate": "tool_call",
                "toolCallId": "c",
                "title": "Read x",
                "kind": "other",
                "status": "pending",
            },
        ),
        (
            ToolCall("c", "Read x", "read", "in_progress", {"rawInput": {"path": "x"}, "title": "not this one"}),
            {
                "sessionUpdate": "tool_call",
                "toolCallId": "c",
                "title": "Read x",
                "kind": "read",
                "status": "in_progress",
                "rawInput": {"path": "x"},
            },
        ),
        (ToolUpdate("c"), {"sessionUpdate": "tool_call_update", "toolCallId": "c"}),
        (
            ToolUpdate("c", "completed", extra={"rawOutput": 1}),
            {"sessionUpdate": "tool_call_update", "toolCallId": "c", "status": "completed", "rawOutput": 1},
        ),
        (
            ToolUpdate("c", title="Read y"),
            {"sessionUpdate": "tool_call_update", "toolCallId": "c", "title": "Read y"},
        ),
        (
            Plan(({"content": "do", "priority": "high", "status": "pending"},)),
            {"sessionUpdate": "plan", "entries": [{"content": "do", "priority": "high", "status": "pending"}]},
        ),
    ],
)
def test_each_is_the_update_of_acp(emission, data):
    made = to_update(emission)
    assert made == data
    schema.SessionNotification.model_validate(json.loads(encode(update("s", made)))["params"])


@pytest.mark.parametrize(
    "emission", [TextDelta("x"), ThoughtDelta("x"), Usage(1, 2), "text", None, {"sessionUpdate": "plan"}]
)
def test_anything_else_is_no_update(emission):
    with pytest.raises(TypeError, match="cannot emit"):
        to_update(emission)


def test_the_limit_is_of_bytes_as_they_are_sent():
    frame = len(json.dumps(to_update(ToolCall("c", ""))))
    at_limit = ToolCall("c", "x" * (UPDATE_BYTES - frame))
    assert len(encode(update("s" * 64, to_update(at_limit), {"seq": 10**9, "turnId": "t" * 20}))) < 256 * 1024
    with pytest.raises(TooBig, match=f"{UPDATE_BYTES + 1} bytes"):
        to_update(ToolCall("c", "x" * (UPDATE_BYTES - frame + 1)))
    with pytest.raises(TooBig):
        to_update(ToolCall("c", "é" * (UPDATE_BYTES // 6 + 1)))
    with pytest.raises(TooBig):
        to_update(Plan(tuple({"content": "x" * 1000} for _ in range(300))))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), b"x"])
def test_what_is_no_json_is_refused_before_anybody_is_sent_it(value):
    with pytest.raises(TypeError):
        to_update(ToolUpdate("c", extra={"rawOutput": value}))


@pytest.mark.parametrize(
    ("emission", "where"),
    [
        (ToolCall("c", "a\ud800b"), lambda made: made["title"]),
        (ToolUpdate("c", extra={"rawOutput": {"x": ["a\ud800b"]}}), lambda made: made["rawOutput"]["x"][0]),
        (Plan(({"content": "a\ud800b"},)), lambda made: made["entries"][0]["content"]),
    ],
)
def test_half_a_surrogate_pair_is_replaced_wherever_it_stands(emission, where):
    assert where(to_update(emission)) == "a\ufffdb"


def test_what_the_agent_does_to_its_own_objects_later_changes_nothing():
    """An event is complete when it is written."""
    output = {"lines": ["a"]}
    made = to_update(ToolUpdate("c", extra={"rawOutput": output}))
    output["lines"].append("b")
    assert made["rawOutput"] == {"lines": ["a"]}


@pytest.mark.parametrize("reason", ["refusal", "cancelled", "", None])
def test_a_turn_stops_only_for_what_a_completed_one_can_stop_for(reason):
    with pytest.raises(ValueError, match="reason"):
        Stop(reason)


@pytest.mark.parametrize("number", [-1, 1.5, float("nan"), "1", None])
def test_tokens_are_whole_numbers(number):
    with pytest.raises((ValueError, TypeError)):
        Usage(number, 10)
    with pytest.raises((ValueError, TypeError)):
        Usage(1, number)
