"""Cases 61, 62 and 63 and their kinds, with the real program before a model server of ours."""

import json

import pytest

from harness import Program, Refused
from model_server import DONE, RESET, STALL, ModelServer, delta, event, fault, head, stream

KEY = "sk-gateway-trio-12345678"

EXEC = """
[quick_commands.env]
type = "exec"
command = "env; echo $PPID; cat /proc/$PPID/environ | tr '\\\\0' '\\\\n' | grep MODEL_KEY"
role = "user"
[quick_commands.up]
type = "exec"
command = "echo up"
"""


@pytest.fixture
def model():
    with ModelServer() as server:
        yield server


def serve(tmp_path, model, extra="", env=None, **more):
    return Program(tmp_path, model.config(**{"max_retries": 0, **more}) + extra, env=env)


def failure(client, session, text):
    with pytest.raises(Refused) as caught:
        client.prompt(session, text)
    return caught.value


# --- a whole conversation ---------------------------------------------------------------------------


def test_a_conversation_with_a_model(tmp_path, model):
    model.replies["and then?"] = [stream("it ", "ends", finish="length", total=33)]
    with serve(tmp_path, model, context_tokens=4096, system_prompt="be brief") as program, program.acp() as client:
        session = client.new_session()
        assert client.prompt(session, "tell me") == {"stopReason": "end_turn"}
        assert client.prompt(session, "and then?") == {"stopReason": "max_tokens"}
        assert client.text() == "tell meit ends"
        usage = client.until(lambda f: f.get("params", {}).get("update", {}).get("used") == 33)
        assert usage["params"]["update"] == {"sessionUpdate": "usage_update", "used": 33, "size": 4096}
        assert [m["content"] for m in model.requests[1]["body"]["messages"]] == [
            "be brief", "tell me", "tell me", "and then?",
        ]  # fmt: skip
        with program.chat("other") as chat:
            chat.send("and then?")
            assert chat.until("· the answer was cut")[-2] == "it ends"
        program.signal()
        assert program.wait() == 0
        assert "HTTP Request" not in program.text, "a model that answers is no news"


def test_an_answer_that_was_interrupted_is_marked_for_the_model(tmp_path, model):
    model.replies["tell me"] = [[head(), delta(content="once upon"), STALL]]
    with serve(tmp_path, model) as program, program.acp() as client:
        session = client.new_session()
        asked = client.ask_prompt(session, "tell me")
        client.until(lambda f: "once upon" in json.dumps(f))
        client.notify("session/cancel", {"sessionId": session})
        assert client.answer(asked) == {"stopReason": "cancelled"}
        assert model.gone.get(timeout=20) == "tell me"  # at once: the model works for nobody
        client.prompt(session, "go on")
        assert [m["content"] for m in model.requests[1]["body"]["messages"]] == [
            "tell me", "once upon\n\n[this answer was interrupted]", "go on",
        ]  # fmt: skip


def test_a_drain_cuts_a_stalled_answer_and_closes_its_connection(tmp_path, model):
    model.replies["tell me"] = [[head(), delta(content="once upon"), STALL]]
    with serve(tmp_path, model, "[drain]\ngrace_seconds = 0.2\n") as program, program.chat() as client:
        client.send("tell me")
        model.wait_for_request()
        program.signal()
        assert model.gone.get(timeout=20) == "tell me"
        assert "· interrupted" in client.until("· interrupted")[-1]
        assert program.wait() == 0
        assert program.report["turns_abandoned"] == []


# --- case 61 ----------------------------------------------------------------------------------------

BROKEN = {
    "a page": ([head(kind="text/html"), b"<html>log in</html>"], "text/html"),
    "a stream that just ends": ([head(), delta(content="a")], "ended in the middle of its answer"),
    "an empty stream": ([head()], "ended without an answer"),
    "[DONE] alone": ([head(), DONE], "ended without an answer"),
    "no JSON": ([head(), b"data: {not json\n\n", DONE], "an event that is no JSON"),
    "an error": (
        [head(), delta(content="a"), event({"error": {"message": "out of memory"}})],
        "broke off: out of memory",
    ),
    "a torn connection": ([head(), delta(content="a"), RESET], "the model's answer broke off"),
}


def test_case_61_a_broken_stream_is_a_named_failure_and_never_an_empty_answer(tmp_path, model):
    model.replies = {name: [steps] for name, (steps, _) in BROKEN.items()}
    # Each is followed by a success, so that no number of failures in a row is reached.
    with serve(tmp_path, model) as program, program.acp() as client, program.chat() as chat:
        session = client.new_session()
        for name, (_, said) in BROKEN.items():
            caught = failure(client, session, name)
            assert (caught.code, caught.reason, caught.data["retryable"]) == (
                -32016,
                "backend_unavailable",
                True,
            ), name
            assert said in str(caught)
            assert client.prompt(session, "well?") == {"stopReason": "end_turn"}
            chat.send(name)
            assert said in chat.until("· failed")[-1]
            assert chat.ask("well?") == "well?"
        assert "Traceback" not in program.text


def test_case_61_a_model_that_is_silent_fails_in_its_time(tmp_path, model):
    model.replies = {"at first": [[head(), STALL]], "later": [[head(), delta(content="a"), STALL]]}
    limits = {"first_token_seconds": 0.5, "token_seconds": 0.5}
    with serve(tmp_path, model, **limits) as program, program.acp() as client:
        session = client.new_session()
        for name in model.replies:
            assert "did not answer in time" in str(failure(client, session, name))
            assert model.gone.get(timeout=20) == name


# --- case 62 ----------------------------------------------------------------------------------------


def test_case_62_what_a_provider_asks_to_wait_is_waited(tmp_path, model):
    model.replies["hi"] = [fault("429 Too Many Requests", "slow down", Retry_After="2"), stream("hello")]
    with serve(tmp_path, model, max_retries=1) as program, program.acp() as client:
        assert client.prompt(client.new_session(), "hi") == {"stopReason": "end_turn"}
        assert client.text() == "hello"
        first, second = model.requests
        assert second["at"] - first["at"] >= 2


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_case_62_what_is_not_waited_for_is_shown(tmp_path, model, status):
    model.replies["hi"] = [fault(status, "slow down", Retry_After="2")]
    with serve(tmp_path, model) as program, program.acp() as client, program.chat() as chat:
        caught = failure(client, client.new_session(), "hi")
        assert caught.reason == "backend_unavailable"
        assert f"({status[:3]}: slow down); it asks to wait 2 s" in str(caught)
        chat.send("hi")
        assert "it asks to wait 2 s" in chat.until("· failed")[-1]


# --- case 63 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "400 Bad Request", "404 Not Found"])
def test_case_63_a_refusal_is_shown_and_nothing_drains(tmp_path, model, status):
    model.replies["hi"] = [fault(status, f"Incorrect API key provided: {KEY}")]
    with (
        serve(tmp_path, model, api_key_env="MODEL_KEY", max_retries=3, env={"MODEL_KEY": KEY}) as program,
        program.acp() as client,
    ):
        session = client.new_session()
        for _ in range(8):
            caught = failure(client, session, "hi")
            assert (caught.code, caught.reason) == (-32603, "failed")
            assert f"({status[:3]}: Incorrect API key provided: ***)" in str(caught)
        assert len(model.requests) == 8, "a refusal is not tried again"
        assert json.loads(program.get("/livez")[1])["phase"] == "open"
        assert client.prompt(session, "well?") == {"stopReason": "end_turn"}
        assert {request["headers"]["authorization"] for request in model.requests} == {f"Bearer {KEY}"}
        program.signal()
        assert program.wait() == 0
        assert KEY not in program.text


def test_case_63_the_key_is_in_no_execs_output(tmp_path, model):
    with serve(tmp_path, model, EXEC, api_key_env="MODEL_KEY", env={"MODEL_KEY": KEY}) as program:
        with program.chat() as client:
            shown = client.ask("/env")
        assert "PATH=" in shown
        assert KEY not in shown
        assert "MODEL_KEY=***" in shown, "what it read elsewhere is redacted"
        assert shown.count("MODEL_KEY") == 1, "its own environment has no such name"
        assert KEY not in program.text


def test_a_quick_command_runs_while_the_model_hangs_or_is_gone(tmp_path, model):
    model.replies["hi"] = [[STALL]]
    with serve(tmp_path, model, EXEC) as program, program.chat() as client:
        client.send("hi")
        model.wait_for_request()
        assert client.ask("/up").startswith("up")
        model.stop()
        client.until("· failed")
        assert client.ask("/up").startswith("up")
        client.send("again")
        assert "cannot be reached: connection refused" in client.until("· failed")[-1]


def test_a_key_that_is_not_set_ends_the_start_with_78(tmp_path, model):
    with Program(tmp_path, model.config(api_key_env="NO_SUCH_KEY"), ready=False) as program:
        assert program.wait() == 78
        assert "agent.api_key_env: the environment variable NO_SUCH_KEY is not set" in program.text
