"""What goes out is as ACP has it."""

import json

import pytest
from acp import schema

from gateway_trio.core import acp
from gateway_trio.core.acp_params import PARAMS
from gateway_trio.core.jsonrpc import encode


@pytest.mark.parametrize(
    ("meta", "ours"),
    [
        ({}, {}),
        ({"gateway-trio": {"key": "k"}}, {"key": "k"}),
        ({"gateway-trio": "x"}, {}),
        ({"gateway-trio": None}, {}),
        ({"other": {"key": 1}}, {}),
    ],
)
def test_only_what_stands_under_our_name_is_ours(meta, ours):
    assert acp.ours(meta) == ours


def test_the_answer_to_initialize_is_acps_and_says_what_we_serve():
    result = acp.initialized("1.2.3", [], 2000)
    read = schema.InitializeResponse.model_validate(json.loads(encode(result)))
    assert read.protocol_version == 1
    assert read.agent_capabilities.load_session
    served = set(result["agentCapabilities"]["sessionCapabilities"])
    assert all(f"session/{name}" in PARAMS for name in served)
    assert acp.most_message_bytes(result, 1) == 2000


@pytest.mark.parametrize("meta", [None, [], {}, {"gateway-trio": {"maxMessageBytes": True}}])
def test_a_gateway_may_not_say_how_long_a_message_may_be(meta):
    assert acp.most_message_bytes({"agentCapabilities": {"_meta": meta}}, 7) == 7
    assert acp.most_message_bytes({"agentCapabilities": meta}, 7) == 7


@pytest.mark.parametrize(
    "frame",
    [
        acp.chunk("s", "user_message_chunk", "hi", "m1"),
        acp.chunk("s", "agent_message_chunk", "hi", "m1", {"seq": 1, "at": 0}),
        acp.chunk("s", "agent_thought_chunk", "", "m1"),
        acp.info("s", {"turn": {"id": "t", "state": "queued"}}),
        acp.update("s", {"sessionUpdate": "plan", "entries": []}),
    ],
)
def test_what_we_send_is_acps(frame):
    assert frame["method"] == "session/update"
    schema.SessionNotification.model_validate(json.loads(encode(frame))["params"])


def test_our_meta_stands_in_the_update_and_beside_an_agents_own():
    body = {"sessionUpdate": "plan", "entries": [], "_meta": {"theirs": 1}}
    params = acp.update("s", body, {"seq": 3})["params"]
    assert set(params) == {"sessionId", "update"}, "the stock Python SDK turns params._meta into keyword arguments"
    assert params["update"]["_meta"] == {"theirs": 1, "gateway-trio": {"seq": 3}}
    assert body["_meta"] == {"theirs": 1}, "what the log holds is not written to"
    assert "_meta" not in acp.update("s", {"sessionUpdate": "plan", "entries": []})["params"]["update"]


@pytest.mark.parametrize("own", [None, 5, "x", [1], True])
def test_a_meta_that_is_no_object_counts_as_none(own):
    """A log may hold one: whoever reads that session must get past it."""
    body = {"sessionUpdate": "plan", "entries": [], "_meta": own}
    assert acp.update("s", body, {"seq": 3})["params"]["update"]["_meta"] == {"gateway-trio": {"seq": 3}}
    assert acp.with_meta(body, {"seq": 4}) == {**body, "_meta": {"gateway-trio": {"seq": 4}}}
    assert body["_meta"] == own
