"""What comes in becomes a frozen class, or the error that names each fault."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_trio.core.acp_params import (
    PARAMS,
    Authenticate,
    Cancel,
    CancelRequest,
    CloseSession,
    DrainAsk,
    ExecAsk,
    Initialize,
    KillAsk,
    ListSessions,
    LoadSession,
    NewSession,
    Nothing,
    PromptAsk,
    ResumeSession,
    UndrainAsk,
    structure,
)
from gateway_trio.core.jsonrpc import Problem


@pytest.mark.parametrize(
    ("method", "params", "made"),
    [
        ("initialize", {"protocolVersion": 1}, Initialize(1, {})),
        (
            "initialize",
            {"protocolVersion": 1, "clientCapabilities": {"fs": {}}},
            Initialize(1, {"fs": {}}),
        ),
        ("initialize", {"protocolVersion": 1, "clientCapabilities": "all"}, Initialize(1, {})),
        ("initialize", {"protocolVersion": 1, "clientCapabilities": None}, Initialize(1, {})),
        ("authenticate", {"methodId": "token", "_meta": {"x": 1}}, Authenticate("token", {"x": 1})),
        ("session/new", {"cwd": "/", "mcpServers": []}, NewSession("/")),
        ("session/load", {"sessionId": "s", "cwd": "/", "_meta": 7}, LoadSession("s", "/")),
        (
            "session/resume",
            {"sessionId": "s", "cwd": "/", "_meta": {"a": {}}},
            ResumeSession("s", "/", {"a": {}}),
        ),
        ("session/list", {}, ListSessions()),
        ("session/list", None, ListSessions()),
        ("session/list", {"cwd": None, "cursor": "7"}, ListSessions(None, "7")),
        ("session/close", {"sessionId": "s"}, CloseSession("s")),
        (
            "session/prompt",
            {"sessionId": "s", "prompt": [{"type": "text"}]},
            PromptAsk("s", [{"type": "text"}]),
        ),
        ("session/cancel", {"sessionId": "s"}, Cancel("s")),
        ("$/cancel_request", {"requestId": 7}, CancelRequest(7)),
        ("$/cancel_request", {"requestId": None}, CancelRequest(None)),
        ("$/cancel_request", {"requestId": "a"}, CancelRequest("a")),
        ("_gateway-trio/status", None, Nothing()),
        ("_gateway-trio/restart", {"more": 1}, Nothing()),
        ("_gateway-trio/exec", {"name": "up"}, ExecAsk("up", [])),
        ("_gateway-trio/exec", {"name": "up", "args": ["", "a b"]}, ExecAsk("up", ["", "a b"])),
        ("_gateway-trio/kill", {"id": "e1"}, KillAsk("e1")),
        ("_gateway-trio/drain", {}, DrainAsk("")),
        ("_gateway-trio/drain", {"why": "backup"}, DrainAsk("backup")),
        ("_gateway-trio/undrain", {}, UndrainAsk("operator")),
    ],
)
def test_parameters_become_their_class_and_unknown_fields_are_ignored(method, params, made):
    before = copy.deepcopy(params)
    assert structure(PARAMS[method], params) == made
    assert params == before
    if params is not None:
        assert structure(PARAMS[method], {**params, "later": {"x": [1]}}) == made


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
    found = structure(PARAMS[method], params)
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


@given(st.sampled_from(sorted(PARAMS)), _json | st.dictionaries(st.sampled_from(_names), _json))
def test_whatever_comes_is_taken_or_refused_and_nothing_is_raised(method, params):
    cls = PARAMS[method]
    found = structure(cls, params)
    assert isinstance(found, cls) or found.reason == "invalid_params"
