"""Cases 2, 60, 62, 63, 64: a backend that fails, in a real process, and what an operator does about it.

The agent is a small one of our own whose backend is down while a file stands. Cases 60 to 64 for a real model's
client are elsewhere; when a probe comes and what counts is in tests/test_breaker.py, in virtual time.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from harness import Program, Refused, ours_of

FAILING = Path(__file__).parent / "programs" / "failing.py"

CONFIG = """
[drain]
grace_seconds = 1
cleanup_seconds = 1
exec_seconds = 2
close_seconds = 1
stop_budget_seconds = 20
[breaker]
probe_seconds = {probe}
[quick_commands.cleanup]
type = "exec"
command = "echo cleaned"
[quick_commands.repair]
type = "exec"
command = 'rm "$1" && echo repaired'
args = "text"
[quick_commands.fails]
type = "exec"
command = "echo partial; exit 7"
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with Program(tmp_path, CONFIG.format(probe=0.1), script=FAILING) as running:
        yield running


@pytest.fixture
def patient(tmp_path, monkeypatch):
    """A program that does not probe in the time of a test."""
    monkeypatch.chdir(tmp_path)
    with Program(tmp_path, CONFIG.format(probe=60), script=FAILING) as running:
        yield running


def break_backend(how: str = "") -> Path:
    """The backend is down from now on, in this way."""
    Path("new").write_text(how)
    os.replace("new", "down")
    return Path("down").absolute()


def refusal(client, session, text) -> Refused:
    with pytest.raises(Refused) as caught:
        client.prompt(session, text)
    return caught.value


def fail(client, session, count=5) -> None:
    for _ in range(count):
        refused = refusal(client, session, "hello")
        assert (refused.code, refused.data["admitted"], str(refused)) == (-32016, True, "503 from the model")


def phases(client) -> list[tuple[str, list[str]]]:
    """Return phase and reasons of each notice so far."""
    notices = [f["params"] for f in client.frames if f.get("method") == "_gateway-trio/phase"]
    return [(notice["phase"], notice["reasons"]) for notice in notices]


def until_phase(client, phase: str, reasons: list[str]) -> None:
    """Wait until the newest notice says this."""
    while not (seen := phases(client)) or seen[-1] != (phase, reasons):
        client.take()


def test_case_02_exec_and_control_work_while_the_backend_fails(patient):
    with patient.acp() as acp, patient.chat() as chat:
        session, other = acp.new_session(), acp.new_session()
        turn = acp.ask_prompt(other, "long")
        acp.until_state("running")
        break_backend()
        fail(acp, session)
        chat.until("· draining (backend)")
        facts = acp.prompt(session, "/cleanup")["_meta"]["gateway-trio"]
        assert (facts["status"], facts["exitCode"]) == ("exited", 0)
        assert "cleaned" in acp.text()
        assert acp.prompt(other, "/cleanup")["stopReason"] == "end_turn", "in the session whose turn runs, too"
        assert chat.ask("/cleanup") == "cleaned\n"
        assert chat.ask("/fails").startswith("partial\n[exit code 7")
        assert acp.call("_gateway-trio/exec", {"name": "cleanup", "args": []})["output"] == "cleaned\n"
        status = chat.ask("/status")
        assert "draining because of backend, asked for by breaker" in status
        assert "503 from the model" in status
        assert "breaker open, the next probe of the backend in" in status
        status = acp.call("_gateway-trio/status")
        assert (status["reasons"], status["breaker"]["state"], status["turns"]) == (["backend"], "open", 1)
        assert 0 < status["breaker"]["nextProbeMs"] <= 60_000
        assert patient.get("/readyz")[0] == 200, "a balancer leaves it where it is"
        assert json.loads(patient.get("/livez")[1])["breaker"]["state"] == "open"
        # One who connects only now is told, and may do the same.
        with patient.chat("late") as late:
            assert late.until("· draining (backend)")
            assert late.ask("/cleanup") == "cleaned\n"
        acp.notify("session/cancel", {"sessionId": other})
        assert acp.answer(turn) == {"stopReason": "cancelled"}


def test_case_60_fast_refusals_then_new_prompts_work_by_themselves(program):
    """503 for a while: no session is lost, what was said is still there, and an exec repairs it."""
    with program.acp() as acp, program.chat() as chat:
        session = acp.new_session()
        assert acp.prompt(session, "before") == {"stopReason": "end_turn"}
        assert chat.ask("mine") == "mine"
        down = break_backend()
        fail(acp, session)
        for _ in range(20):
            refused = refusal(acp, session, "hello")
            assert (refused.code, refused.reason, refused.data["admitted"]) == (-32010, "draining", False)
            assert refused.data["reasons"] == ["backend"]
            assert refused.data["retryAfterMs"] > 0
        chat.until("· draining (backend)")
        assert "(try again in " in chat.ask("hello")
        assert chat.ask(f"/repair {down}") == "repaired\n"
        until_phase(acp, "open", [])
        assert chat.until("· open again")
        assert acp.prompt(session, "after") == {"stopReason": "end_turn"}
        assert chat.ask("after") == "after"
        assert acp.call("_gateway-trio/status")["breaker"] == {"state": "closed", "nextProbeMs": None}
        assert chat.ask("/history").startswith("you: mine\nagent: mine")
        assert phases(acp) == [("open", []), ("draining", ["backend"]), ("open", [])], "one notice a change"
        program.signal()
        assert acp.code == chat.code == 1012
    assert program.wait() == 0


def test_case_60_an_admins_word_ends_it_without_a_probe(patient):
    with patient.acp() as acp, patient.chat() as chat:
        session = acp.new_session()
        down = break_backend()
        fail(acp, session)
        chat.until("· draining (backend)")
        assert chat.ask("/undrain") == "There is no drain for the reason operator that can be taken back."
        assert chat.ask("/undrain backend") == "Open again."
        assert "breaker half-open" in chat.ask("/status")
        fail(acp, session, 1)
        chat.until("· draining (backend)")
        down.unlink()
        assert acp.call("_gateway-trio/undrain", {"reason": "backend"})["breaker"]["state"] == "half-open"
        assert acp.prompt(session, "hello") == {"stopReason": "end_turn"}
        assert "breaker closed" in chat.ask("/status")


def test_case_62_retry_after_is_shown_and_honoured(patient):
    with patient.acp() as acp, patient.chat() as chat:
        session = acp.new_session()
        down = break_backend("2")
        for _ in range(5):
            refused = refusal(acp, session, "hello")
            assert (refused.code, refused.data["retryAfterMs"]) == (-32016, 2000)
        failed = next(
            ours_of(f)["turn"] for f in acp.frames if ours_of(f).get("turn", {}).get("state") == "failed"
        )
        assert (failed["reason"], failed["retryAfterMs"]) == ("backend_unavailable", 2000)
        assert 0 < refusal(acp, session, "hello").data["retryAfterMs"] <= 2000
        until_phase(acp, "draining", ["backend"])
        down.unlink()
        # The first wait of the config is a minute: it is the backend's own that is kept to.
        until_phase(acp, "open", [])
        assert acp.prompt(session, "hello") == {"stopReason": "end_turn"}
        assert chat.ask("hello") == "hello"


def test_case_63_a_rejection_is_shown_as_such_and_drains_nothing(program):
    with program.acp() as acp, program.chat() as chat:
        session = acp.new_session()
        break_backend("401")
        for _ in range(12):
            refused = refusal(acp, session, "hello")
            assert (refused.code, refused.reason) == (-32603, "failed")
            assert str(refused) == "401 from the model: this key is not valid"
        chat.send("hello")
        assert "this key is not valid" in chat.until("· failed")[-1]
        status = acp.call("_gateway-trio/status")
        assert (status["phase"], status["breaker"]["state"]) == ("open", "closed")


def test_case_64_a_poisoned_session_drains_nothing_while_others_succeed(program):
    with program.acp() as acp, program.chat() as chat:
        poisoned, fine = acp.new_session(), acp.new_session()
        for _ in range(4):
            for _ in range(4):
                assert refusal(acp, poisoned, "poison").code == -32016
            assert acp.prompt(fine, "hello") == {"stopReason": "end_turn"}
        assert acp.call("_gateway-trio/status")["phase"] == "open"
        assert chat.ask("hello") == "hello"
        # All sessions share one breaker: were it the only one that speaks, it would count.
        for _ in range(5):
            refusal(acp, poisoned, "poison")
        assert chat.until("· draining (backend)")


@pytest.mark.parametrize("how", ["SIGTERM", "SIGUSR1", "/restart"])
def test_going_down_while_the_backend_fails(how, patient):
    with patient.acp() as acp, patient.chat() as chat:
        session, other = acp.new_session(), acp.new_session()
        turn = acp.ask_prompt(other, "long")
        acp.until_state("running")
        break_backend()
        fail(acp, session)
        if how == "/restart":
            chat.send("/restart")
            chat.until("The gateway restarts.")
        else:
            patient.signal(signal.Signals[how])
        final = "shutdown" if how == "SIGTERM" else "restart"
        until_phase(acp, "draining", sorted(["backend", final]))
        assert refusal(acp, session, "x").data["reasons"] == sorted(["backend", final])
        assert chat.ask("/cleanup") == "cleaned\n"
        with pytest.raises(Refused) as refused:
            acp.answer(turn)
        assert refused.value.reason == "interrupted"
        assert acp.code == chat.code == 1012
    assert patient.wait() == {"shutdown": 0, "restart": 75}[final]
    report = patient.report
    assert (report["reason"], report["cut"], report["turns_interrupted"]) == (final, False, 1)
    assert report["total_seconds"] < 20
    assert report["turns_abandoned"] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_probe_that_ignores_its_cancellation_holds_nothing_up(number, program):
    with program.acp() as acp:
        break_backend("stuck")
        fail(acp, acp.new_session())
        program.wait_log("probe ignores its cancellation")
        assert acp.call("_gateway-trio/status")["abandoned"] == ["probe"]
        program.signal(number)
        assert acp.code == 1012
    assert program.wait() == {signal.SIGTERM: 0, signal.SIGUSR1: 75}[number]
    assert program.report["turns_abandoned"] == ["probe"]
    assert program.report["total_seconds"] < 20
