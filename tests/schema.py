"""Every frame that we send on `/acp`, held against the schema of the stock ACP SDK (`acp.schema`).

A `Checker` belongs to one connection: it is shown what the client sends, so that it knows which method a result
answers, and `check` raises AssertionError for a frame that is not as ACP, or where ACP says nothing the design, has
it. The models of the SDK forgive a lot; here a field that they drop or mend counts as wrong.
"""

from __future__ import annotations

import json

import acp.schema as sdk

#: No frame is over this (the SDK's client stops at 1 MiB).
FRAME_BYTES = 256 * 1024

RESULTS = {
    "initialize": sdk.InitializeResponse,
    "authenticate": sdk.AuthenticateResponse,
    "session/new": sdk.NewSessionResponse,
    "session/load": sdk.LoadSessionResponse,
    "session/resume": sdk.ResumeSessionResponse,
    "session/list": sdk.ListSessionsResponse,
    "session/close": sdk.CloseSessionResponse,
    "session/prompt": sdk.PromptResponse,
}
SENT = {
    "session/update": sdk.SessionNotification,
    "session/request_permission": sdk.RequestPermissionRequest,
    "$/cancel_request": sdk.CancelRequestNotification,
}
#: What each of our own notifications carries: all of it, and nothing else.
OURS = {
    "_gateway-trio/phase": {
        "phase": str,
        "reasons": list,
        "remainingMs": int | None,
        "turns": int,
        "execs": int,
        "accepts": list,
        "revocable": bool,
    },
    "_gateway-trio/goodbye": {"code": int, "reconnectAfterMs": int | None},
}
CHUNKS = ("user_message_chunk", "agent_message_chunk", "agent_thought_chunk")
STATES = {"queued", "running", "completed", "cancelled", "interrupted", "failed"}


def holds(model, value) -> None:
    """Assert that `value` is exactly what the model describes: nothing converted, mended or dropped."""
    made = model.model_validate_json(json.dumps(value), strict=True)
    again = made.model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert again == value, f"{model.__name__} drops or changes something: {value} became {again}"


class Checker:
    """What is known of one connection."""

    def __init__(self) -> None:
        self._asked: dict[str, list[str]] = {}
        self._ours = False

    def sent(self, text: str | bytes) -> None:
        """Note what the client sends."""
        try:
            frame = json.loads(text)
        except (ValueError, RecursionError):
            return
        if isinstance(frame, dict) and isinstance(method := frame.get("method"), str) and "id" in frame:
            self._asked.setdefault(json.dumps(frame["id"]), []).append(method)
            if method == "initialize" and isinstance(frame.get("params"), dict):
                capabilities = frame["params"].get("clientCapabilities")
                meta = capabilities.get("_meta") if isinstance(capabilities, dict) else None
                self._ours = self._ours or (isinstance(meta, dict) and "gateway-trio" in meta)

    def check(self, text: str) -> dict:
        """Return the frame, parsed; raise if it is not as it must be."""
        assert isinstance(text, str), "a binary frame"
        assert len(text.encode()) <= FRAME_BYTES, f"a frame of {len(text)} characters: {text[:200]}"
        frame = json.loads(text)
        assert frame.get("jsonrpc") == "2.0", frame
        if "method" in frame:
            self._check_sent(frame)
        elif "error" in frame:
            assert set(frame) == {"jsonrpc", "id", "error"}, frame
            check_error(frame["error"])
            self._take(frame["id"])
        else:
            assert set(frame) == {"jsonrpc", "id", "result"}, frame
            self._check_result(frame)
        return frame

    def _take(self, id_) -> str | None:
        """Return the method of the oldest request with this id that waits, which is answered herewith."""
        waiting = self._asked.get(json.dumps(id_))
        return waiting.pop(0) if waiting else None

    def _check_sent(self, frame: dict) -> None:
        method, params = frame["method"], frame["params"]
        assert set(frame) - {"id"} == {"jsonrpc", "method", "params"}, frame
        assert ("id" in frame) == (method == "session/request_permission"), frame
        if method in OURS:
            assert self._ours, f"{method} to a client that does not speak it"
            assert set(params) == set(OURS[method]), frame
            for name, type_ in OURS[method].items():
                assert isinstance(params[name], type_), frame
            return
        assert "_meta" not in params, f"the SDK would make keyword arguments of it: {frame}"
        holds(SENT[method], params)
        if method == "session/update":
            check_update(params["update"])
        if method == "session/request_permission":
            ours = params["toolCall"]["_meta"]["gateway-trio"]
            assert set(ours) == {"seq", "turnId", "permissionId"}, frame

    def _check_result(self, frame: dict) -> None:
        method = self._take(frame["id"])
        assert method is not None, f"an answer to nothing: {frame}"
        if method.startswith("_gateway-trio/"):
            assert isinstance(frame["result"], dict), frame
            return
        holds(RESULTS[method], frame["result"])


def check_update(update: dict) -> None:
    """Assert what the design says of an update beyond ACP."""
    kind = update["sessionUpdate"]
    ours = (update.get("_meta") or {}).get("gateway-trio") or {}
    if kind in CHUNKS:
        assert update["messageId"], update
        assert ("seq" in ours) == ("at" in ours), update
    if kind == "session_info_update":
        assert ours, f"says nothing: {update}"
    for work in {"turn", "exec"} & set(ours):
        change = ours[work]
        assert {"id", "key", "seq", "state", "reason"} <= set(change), update
        assert change["state"] in STATES, update
        assert ("position" in change) == (change["state"] == "queued"), update
    if "permission" in ours:
        permission = ours["permission"]
        more = {"toolCallId", "title"} if permission["state"] == "asked" else {"optionId", "by"}
        assert set(permission) == {"id", "state"} | more, update
        assert permission["state"] in {"asked", "selected", "lapsed", "cancelled"}, update
        assert {"seq", "turnId"} <= set(ours), update


def check_error(error: dict) -> None:
    """Assert that an error is ACP's, and that its data are what programs branch on."""
    holds(sdk.Error, error)
    data = error["data"]
    assert isinstance(data["reason"], str), error
    assert isinstance(data["retryable"], bool), error
    assert error["message"].strip(), error
    assert isinstance(data.get("admitted", False), bool), error
    assert isinstance(data.get("retryAfterMs", 0), int), error
