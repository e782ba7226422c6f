"""What comes in becomes a frozen class or the error that names each fault; what goes out is as ACP has it."""

import copy
import json

import pytest
from acp import schema
from hypothesis import given
from hypothesis import strategies as st

from gateway_trio.core import acp
from gateway_trio.core.jsonrpc import Problem, encode


@pytest.mark.parametrize(
    ("method", "params", "made"),
    [
        ("initialize", {"protocolVersion": 1}, acp.Initialize(1, {})),
        ("initialize", {"protocolVersion": 1, "clientCapabilities": {"fs": {}}}, acp.Initialize(1, {"fs": {}})),
        ("initialize", {"protocolVersion": 1, "clientCapabilities": "all"}, acp.Initialize(1, {})),
        ("initialize", {"protocolVersion": 1, "clientCapabilities": None}, acp.Initialize(1, {})),
        ("authenticate", {"methodId": "token", "_meta": {"x": 1}}, acp.Authenticate("token", {"x": 1})),
        ("session/new", {"cwd": "/", "mcpServers": []}, acp.NewSession("/")),
        ("session/load", {"sessionId": "s", "cwd": "/", "_meta": 7}, acp.LoadSession("s", "/")),
        (
            "session/resume",
            {"sessionId": "s", "cwd": "/", "_meta": {"a": {}}},
            acp.ResumeSession("s", "/", {"a": {}}),
        ),
        ("session/list", {}, acp.ListSessions()),
        ("session/list", None, acp.ListSessions()),
        ("session/list", {"cwd": None, "cursor": "7"}, acp.ListSessions(None, "7")),
        ("session/close", {"sessionId": "s"}, acp.CloseSession("s")),
        (
            "session/prompt",
            {"sessionId": "s", "prompt": [{"type": "text"}]},
            acp.PromptAsk("s", [{"type": "text"}]),
        ),
        ("session/cancel", {"sessionId": "s"}, acp.Cancel("s")),
        ("$/cancel_request", {"requestId": 7}, acp.CancelRequest(7)),
        ("$/cancel_request", {"requestId": None}, acp.CancelRequest(None)),
        ("$/cancel_request", {"requestId": "a"}, acp.CancelRequest("a")),
        ("_gateway-trio/status", None, acp.Nothing()),
        ("_gateway-trio/restart", {"more": 1}, acp.Nothing()),
        ("_gateway-trio/exec", {"name": "up"}, acp.ExecAsk("up", [])),
        ("_gateway-trio/exec", {"name": "up", "args": ["", "a b"]}, acp.ExecAsk("up", ["", "a b"])),
        ("_gateway-trio/kill", {"id": "e1"}, acp.KillAsk("e1")),
        ("_gateway-trio/drain", {}, acp.DrainAsk("")),
        ("_gateway-trio/drain", {"why": "backup"}, acp.DrainAsk("backup")),
        ("_gateway-trio/undrain", {}, acp.UndrainAsk("operator")),
    ],
)
def test_parameters_become_their_class_and_unknown_fields_are_ignored(method, params, made):
    before = copy.deepcopy(params)
    assert acp.structure(acp.PARAMS[method], params) == made
    assert params == before
    if params is not None:
        assert acp.structure(acp.PARAMS[method], {**params, "later": {"x": [1]}}) == made


@pytest.mark.parametrize(
    ("method", "params", "faults"),
    [
        ("initialize", {}, ["params.protocolVersion: missing"]),
        (
            "initialize",
            {"protocolVersion": "1"},
            ["params.protocolVersion: expected a whole number, not a string"],
        ),
        (
            "initialize",
            {"protocolVersion": True},
            ["params.protocolVersion: expected a whole number, not true or false"],
        ),
        (
            "initialize",
            {"protocolVersion": 1.0},
            ["params.protocolVersion: expected a whole number, not a number"],
        ),
        ("session/prompt", {}, ["params.sessionId: missing", "params.prompt: missing"]),
        (
            "session/prompt",
            {"sessionId": 1, "prompt": "hi"},
            [
                "params.sessionId: expected a string, not a whole number",
                "params.prompt: expected a list, not a string",
            ],
        ),
        (
            "session/prompt",
            {"sessionId": "s", "prompt": ["hi"]},
            ["params.prompt: expected an object, not a string"],
        ),
        ("session/prompt", {"sessionId": None, "prompt": []}, ["params.sessionId: expected a string, not null"]),
        ("session/list", {"cursor": 7}, ["params.cursor: expected a string, not a whole number"]),
        ("$/cancel_request", {"requestId": True}, ["params.requestId: expected a string, a number or null"]),
        ("$/cancel_request", {"requestId": {}}, ["params.requestId: expected a string, a number or null"]),
        ("$/cancel_request", {}, ["params.requestId: missing"]),
        ("_gateway-trio/exec", {"name": "up", "args": "a b"}, ["params.args: expected a list, not a string"]),
        (
            "_gateway-trio/exec",
            {"name": "up", "args": [1]},
            ["params.args: expected a string, not a whole number"],
        ),
        ("session/new", [], ["params is an object"]),
        ("session/new", "x", ["params is an object"]),
    ],
)
def test_every_fault_is_named_by_its_place_on_the_wire(method, params, faults):
    found = acp.structure(acp.PARAMS[method], params)
    assert isinstance(found, Problem)
    assert (found.code, found.reason) == (-32602, "invalid_params")
    assert sorted(found.message.split("; ")) == sorted(faults)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_names = (
    "sessionId",
    "cwd",
    "_meta",
    "prompt",
    "requestId",
    "name",
    "args",
    "id",
    "why",
    "reason",
    "protocolVersion",
    "clientCapabilities",
    "methodId",
    "cursor",
)


@given(st.sampled_from(sorted(acp.PARAMS)), _json | st.dictionaries(st.sampled_from(_names), _json))
def test_whatever_comes_is_taken_or_refused_and_nothing_is_raised(method, params):
    cls = acp.PARAMS[method]
    found = acp.structure(cls, params)
    assert isinstance(found, cls) or found.reason == "invalid_params"


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
    result = acp.initialized("1.2.3", [])
    read = schema.InitializeResponse.model_validate(json.loads(encode(result)))
    assert read.protocol_version == 1
    assert read.agent_capabilities.load_session
    served = set(result["agentCapabilities"]["sessionCapabilities"])
    assert all(f"session/{name}" in acp.PARAMS for name in served)


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
