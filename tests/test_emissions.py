"""What an agent emits becomes an update that fits in a frame and that every client can read."""

import json

import pytest
import trio
from acp import schema

from gateway_trio.agents import Plan, Stop, TextDelta, ThoughtDelta, ToolCall, ToolUpdate, TurnOver, Usage
from gateway_trio.config import Config, DrainConfig
from gateway_trio.core.acp import update
from gateway_trio.core.jsonrpc import DEPTH, Notification, encode, parse
from gateway_trio.emissions import UPDATE_BYTES, TooBig, to_update
from gateway_trio.testing import AcpError, ScriptedAgent
from memory import acp_lab


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


def nested(depth):
    value = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [DEPTH - 2, 500, 900, 960, 980, 990, 100_000])
def test_what_is_nested_deeper_than_a_frame_may_be_is_refused(depth):
    """Of what `json` just about writes here, the writers of all clients would write nothing, deeper in the stack."""
    for deep in (ToolCall("c", "t", extra={"rawInput": nested(depth)}), Plan(({"content": nested(depth)},))):
        with pytest.raises(TypeError, match=f"nested deeper than {DEPTH - 2}"):
            to_update(deep)


def test_the_deepest_that_is_taken_is_read_by_our_own_client():
    made = to_update(ToolCall("c", "t", extra={"rawInput": nested(DEPTH - 3)}))
    assert isinstance(parse(encode(update("s", made, {"seq": 1}))), Notification)
    assert to_update(ToolCall("c", "t", extra={"rawInput": [[], {}] * 500}))["rawInput"] == [[], {}] * 500


@pytest.mark.parametrize("meta", [5, "x", [1], True])
def test_a_meta_is_an_object(meta):
    for emission in (ToolCall("c", "t", extra={"_meta": meta}), ToolUpdate("c", extra={"_meta": meta})):
        with pytest.raises(TypeError, match="_meta"):
            to_update(emission)


def test_or_null_as_acp_has_it():
    made = to_update(ToolCall("c", "t", extra={"_meta": None}))
    assert update("s", made, {"seq": 1})["params"]["update"]["_meta"] == {"gateway-trio": {"seq": 1}}


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


@pytest.mark.parametrize("number", [2**53 + 1, 10**400, 10**5000], ids=["2**53 + 1", "long", "longer"])
def test_there_are_not_more_tokens_than_a_client_can_count(number):
    Usage(2**53, 2**53)
    with pytest.raises(ValueError):
        Usage(number, 10)
    with pytest.raises(ValueError):
        Usage(1, number)


@pytest.mark.parametrize("kind", [TextDelta, ThoughtDelta])
@pytest.mark.parametrize("text", [b"abc", None, 5, ["a"]])
def test_a_text_is_one(kind, text):
    with pytest.raises(TypeError, match="text"):
        kind(text)


@pytest.mark.parametrize("name", ["id", "title", "kind", "status", "extra"])
@pytest.mark.parametrize("value", [None, 5, b"x", ["x"], {"a": 1}])
def test_a_tool_call_is_of_acps_types(name, value):
    given = {"id": "c", "title": "t"} | {name: value}
    if (name, value) == ("extra", {"a": 1}):
        ToolCall(**given)
    else:
        with pytest.raises(TypeError, match=name):
            ToolCall(**given)


@pytest.mark.parametrize("name", ["id", "title", "status", "extra"])
@pytest.mark.parametrize("value", [None, 5, b"x", ["x"], {"a": 1}])
def test_so_is_an_update_of_one(name, value):
    given = {"id": "c"} | {name: value}
    if (name, value) in [("extra", {"a": 1}), ("title", None), ("status", None)]:
        ToolUpdate(**given)
    else:
        with pytest.raises(TypeError, match=name):
            ToolUpdate(**given)


@pytest.mark.parametrize("entries", [5, None, "ab", b"ab", {"content": "a"}, ("a",), [{"content": "a"}, 5]])
def test_a_plan_is_made_of_entries(entries):
    with pytest.raises(TypeError):
        Plan(entries)


def test_entries_come_in_anything_that_yields_them():
    entry = {"content": "a", "priority": "low", "status": "pending"}
    assert Plan([entry]) == Plan((entry,)) == Plan(dict(entry) for _ in range(1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: TextDelta(b"abc"),
        lambda: ThoughtDelta(None),
        lambda: Usage(10**5000, 1),
        lambda: ToolCall("c", None),
        lambda: Plan(("a",)),
        lambda: ToolCall("c", "t", extra={"_meta": 5}),
        lambda: ToolCall("c", "t", extra={"_meta": [1]}),
        lambda: ToolCall("c", "t", extra={"rawInput": nested(980)}),
    ],
    ids=["text", "thought", "usage", "call", "plan", "number", "list", "deep"],
)
async def test_a_bad_emission_costs_its_own_turn_only(make, autojump_clock):
    async def bad(_turn, emit):
        await emit(make())

    async with acp_lab(agent=ScriptedAgent({"bad": ["so ", bad], "good": ["fine"]})) as lab:
        client, other = await lab.acp(), await lab.acp()
        session = await client.new_session()
        await other.call("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
        with pytest.raises(AcpError) as caught:
            await client.prompt(session, "bad")
        assert caught.value.reason == "internal"
        await other.prompt(session, "good")
        await client.until(lambda _: client.text() == other.text() == "so fine")


async def swallowing(attempt):
    """Let an agent whose turn is cancelled try it again and again; return whether `TurnOver` ended that."""
    told, given_up = trio.Event(), trio.Event()

    async def deaf(turn, emit):
        while not given_up.is_set():
            try:
                await attempt(turn, emit)
                await trio.sleep(0.01)
            except trio.Cancelled:
                pass
            except TurnOver:
                told.set()
                return

    config = Config(drain=DrainConfig(cleanup_seconds=0.2))
    async with acp_lab(config, agent=ScriptedAgent({"go": [deaf]})) as lab:
        client = await lab.acp()
        session = await client.new_session()
        id_ = await client.ask_prompt(session, "go")
        await client.until_state("running")
        await client.notify("session/cancel", {"sessionId": session})
        assert (await client.answer(id_))["stopReason"] == "cancelled"
        with trio.move_on_after(5):
            await told.wait()
        given_up.set()
    return told.is_set()


async def test_an_agent_that_swallows_its_cancellation_is_told_that_its_turn_is_over():
    assert await swallowing(lambda _turn, emit: emit(TextDelta("y")))


async def test_so_is_one_that_asks_for_permission():
    assert await swallowing(lambda turn, _emit: turn.ask_permission(ToolCall("c", "t")))


@pytest.mark.parametrize("shield", [False, True])
@pytest.mark.parametrize("how", ["emit", "ask", "ask badly"])
async def test_one_whose_turn_is_over_still_lets_others_run(how, shield, autojump_clock):
    """Whatever it swallows: a loop around an emit is not a loop in which nobody else gets a turn."""
    kept = []

    async def keep(turn, emit):
        kept.append((turn, emit))
        await emit(TextDelta("y"))

    async def other():
        ran.append(True)

    ran = []
    async with acp_lab(agent=ScriptedAgent({"go": [keep]})) as lab, trio.open_nursery() as nursery:
        client = await lab.acp()
        await client.prompt(await client.new_session(), "go")
        ((turn, emit),) = kept
        nursery.start_soon(other)
        with trio.CancelScope() as scope, trio.CancelScope(shield=shield):
            scope.cancel()
            for _ in range(3):
                with pytest.raises(TurnOver):
                    if how == "emit":
                        await emit(TextDelta("z"))
                    else:
                        await turn.ask_permission(ToolCall("c", "t") if how == "ask" else None)
        assert ran
