"""Cases 9, 11, 12, 15: the program goes down, for whatever reason and whatever its turns do, at its deadline."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from harness import Program, Refused, alive

STUBBORN = Path(__file__).parent / "programs" / "stubborn.py"

CONFIG = """
[drain]
grace_seconds = 0.5
cleanup_seconds = 0.5
exec_seconds = 1.5
close_seconds = 1
stop_budget_seconds = 20
[exec]
term_seconds = 0.5
[agent]
words_per_second = 2
[quick_commands.restart-me]
type = "exec"
command = 'kill -USR1 "$PPID"; echo asked; sleep 1; echo "and done"'
[quick_commands.restart-for-ever]
type = "exec"
command = 'kill -USR1 "$PPID"; echo asked; sleep 300'
[quick_commands.half-a-second]
type = "exec"
command = "sleep 0.5; echo over"
"""
#: Seconds in which a drain with the numbers above has ended, whatever happens: its budget.
BUDGET = 20
LONG = "one two three four five six seven eight nine ten " * 6


# --- 9: who asks for the restart of its own gateway -----------------------------------------------------


@pytest.mark.parametrize("what", ["restart", "term"])
def test_case_09_a_turn_that_ends_its_own_gateway_is_not_waited_for(what, tmp_path):
    with Program(tmp_path, CONFIG, script=STUBBORN) as program:
        with program.acp() as acp, program.chat() as chat:
            id_ = acp.ask_prompt(acp.new_session(), what)
            chat.until("· draining")
            with pytest.raises(Refused) as refused:
                acp.answer(id_)
            assert refused.value.reason == "interrupted"
            assert acp.text() == "begun "
            assert acp.code == chat.code == 1012
        assert program.wait() == {"restart": 75, "term": 0}[what]
        report = program.report
        assert report["total_seconds"] < BUDGET
        assert (report["turns_running"], report["turns_interrupted"], report["turns_abandoned"]) == (1, 1, [])


@pytest.mark.parametrize("road", ["chat", "acp", "request"])
@pytest.mark.parametrize("command", ["restart-me", "restart-for-ever"])
def test_case_09_an_exec_that_restarts_its_own_gateway_is_delivered(command, road, tmp_path):
    patient = CONFIG.replace("exec_seconds = 1.5", "exec_seconds = 10") if command == "restart-me" else CONFIG
    with Program(tmp_path, patient) as program:
        if road == "chat":
            with program.chat() as client:
                client.send(f"/{command}")
                output = client.until("asked")[-1]
                assert client.code == 1012
        else:
            with program.acp() as client:
                if road == "acp":
                    client.prompt(client.new_session(), f"/{command}")
                    output = client.text()
                else:
                    output = client.call("_gateway-trio/exec", {"name": command, "args": []})["output"]
                assert client.code == 1012
        assert program.wait() == 75
        assert program.report["total_seconds"] < BUDGET
        if command == "restart-me":
            assert output == "asked\nand done\n"
            assert program.report["execs_killed"] == 0
        else:
            if road == "request":  # here its facts say how it ended; in a session a line does
                assert output == "asked\n"
            else:
                assert output.startswith("asked\n[ended after")
                assert output.endswith("because the gateway goes down]")
            assert program.report["execs_killed"] == 1


@pytest.mark.parametrize("road", ["chat", "acp"])
def test_case_09_and_69_a_restart_is_acknowledged_and_the_next_process_is_open(road, tmp_path):
    with Program(tmp_path, CONFIG) as program:
        with program.chat() as chat, program.acp() as acp:
            chat.send(LONG)
            session = acp.new_session()
            turn = acp.ask_prompt(session, LONG)
            waits = acp.ask_prompt(session, "waits behind it")
            acp.until_state("running")
            if road == "chat":
                assert chat.ask("/restart").startswith("The gateway restarts. What is in memory only")
            else:
                assert acp.call("_gateway-trio/restart")["message"].startswith("The gateway restarts.")
            for id_ in (turn, waits):
                with pytest.raises(Refused) as refused:
                    acp.answer(id_)
                assert (refused.value.code, refused.value.data["admitted"]) == (-32800, True)
            assert acp.code == chat.code == 1012
        assert program.wait() == 75
    # No loop, and nothing carried over: the next process is open, and runs only what it is sent.
    with Program(tmp_path, CONFIG) as program:
        with program.chat() as chat, program.acp() as acp:
            status = acp.call("_gateway-trio/status")
            assert (status["phase"], status["reasons"], status["turns"]) == ("open", [], 0)
            assert program.get("/readyz")[0] == 200
            assert chat.ask("/history") == "Nothing was said yet."
            assert chat.ask("hello") == "hello"
        program.signal()
        assert program.wait() == 0


@pytest.mark.parametrize("how", ["killed in the drain", "paused"])
def test_case_69_a_drain_does_not_carry_over(how, tmp_path):
    with Program(tmp_path, CONFIG) as program, program.chat() as chat:
        chat.ask("/drain for ever")
        chat.send(LONG)
        if how == "killed in the drain":
            program.signal()
            chat.until("· draining", "shutdown")
        program.signal(signal.SIGKILL)
        assert program.wait() == -signal.SIGKILL
    with Program(tmp_path, CONFIG) as program, program.chat() as chat:
        assert chat.ask("/status").startswith("phase open, 0 turns")
        assert chat.ask("hello") == "hello"


# --- 11: a turn that ignores its cancellation -----------------------------------------------------------


@pytest.mark.parametrize("reason", ["SIGTERM", "SIGUSR1", "second SIGTERM"])
@pytest.mark.parametrize("what", ["shield", "thread"])
def test_case_11_a_turn_that_ignores_cancellation_costs_only_itself(what, reason, tmp_path):
    grace = CONFIG if reason != "second SIGTERM" else CONFIG.replace("grace_seconds = 0.5", "grace_seconds = 12")
    with Program(tmp_path, grace, script=STUBBORN) as program:
        with program.acp() as acp, program.chat() as chat:
            session = acp.new_session()
            id_ = acp.ask_prompt(session, what)
            running = acp.until_state("running")["params"]["update"]["_meta"]["gateway-trio"]["turn"]["id"]
            program.signal(getattr(signal, reason.split()[-1]))
            chat.until("· draining")
            if reason == "second SIGTERM":
                # Repeats within a quarter of a second are one signal; an exec of half a second lies between.
                assert chat.ask("/half-a-second") == "over\n"
                program.signal()
            with pytest.raises(Refused) as refused:
                acp.answer(id_)
            assert refused.value.reason == "interrupted"
            assert acp.code == chat.code == 1012
        assert program.wait() == (75 if reason == "SIGUSR1" else 0)
        report = program.report
        assert report["turns_abandoned"] == [running]
        assert report["total_seconds"] < BUDGET
        assert report["phases"]["cancelling"] >= 0.49
        assert not alive(program.pid)


def test_case_11_a_turn_that_freezes_the_whole_loop_is_ended_too(tmp_path):
    config = CONFIG.replace("stop_budget_seconds = 20", "stop_budget_seconds = 7")
    with Program(tmp_path, config, script=STUBBORN) as program:
        acp = program.acp()
        acp.ask_prompt(acp.new_session(), "freeze")
        acp.until_state("running")
        program.signal()
        assert program.wait(60) == 1
        acp.close()
        assert "in freeze" in program.text, "it says where the loop stood"


# --- 12: a turn that needs a little more -----------------------------------------------------------------


@pytest.mark.parametrize("reason", ["SIGTERM", "SIGUSR1"])
def test_case_12_a_turn_that_needs_three_more_seconds_gets_them(reason, tmp_path):
    config = CONFIG.replace("grace_seconds = 0.5", "grace_seconds = 10")
    with Program(tmp_path, config, script=STUBBORN) as program:
        with program.acp() as acp, program.chat() as chat:
            chat.send("work 3")
            id_ = acp.ask_prompt(acp.new_session(), "work 3")
            acp.until_state("running")
            program.signal(getattr(signal, reason))
            assert acp.answer(id_) == {"stopReason": "end_turn"}
            assert acp.text() == "begun done"
            assert chat.until("begun")[-1] == "begun done"
            assert acp.code == chat.code == 1012
        assert program.wait() == (75 if reason == "SIGUSR1" else 0)
        report = program.report
        assert (report["turns_running"], report["turns_finished"], report["turns_interrupted"]) == (2, 2, 0)
        assert report["phases"]["draining"] < 9.9, "it ends with the turn, not with the grace"


# --- 15: a restart that is taken back, and one that cannot be ---------------------------------------------


@pytest.mark.parametrize(
    ("how", "back"),
    [
        ("SIGUSR1", "/undrain"),
        ("SIGUSR1", "_gateway-trio/undrain"),
        ("/restart", "/undrain restart"),
        ("_gateway-trio/restart", "/undrain"),
    ],
)
def test_case_15_a_restart_that_is_taken_back(how, back, tmp_path):
    config = CONFIG.replace("grace_seconds = 0.5", "grace_seconds = 10").replace(
        "per_second = 2", "per_second = 30"
    )
    with Program(tmp_path, config) as program, program.chat() as chat, program.acp() as acp:
        session = acp.new_session()
        turn = acp.ask_prompt(session, LONG)
        queued = acp.ask_prompt(session, "queued")
        acp.until_state("running")
        if how == "SIGUSR1":
            program.signal(signal.SIGUSR1)
        elif how == "/restart":
            chat.send(how)
        else:
            acp.call(how)
        chat.until("· draining (restart)")
        with pytest.raises(Refused):
            acp.prompt(session, "no")
        if back.startswith("/"):
            chat.send(back)
        else:
            assert acp.call(back)["phase"] == "open"
        chat.until("· open again")
        assert program.get("/readyz")[0] == 200
        # The turn was not touched, what waited runs, and new ones are taken.
        for id_ in (turn, queued):
            assert acp.answer(id_) == {"stopReason": "end_turn"}
        assert acp.prompt(session, "yes") == {"stopReason": "end_turn"}
        program.signal()
        assert acp.code == 1012
        assert program.wait() == 0, "the restart left nothing behind"


FAULTS = ["[server\n", "[drain]\ngrace_seconds = 1000\n", "[serve]\nport = 1\n", None]


def restart_is_refused(program, how, chat, acp) -> str:
    """Ask for a restart; return why there is none."""
    if how == "/restart":
        return chat.ask("/restart")
    if how == "SIGUSR1":
        program.signal(signal.SIGUSR1)
        return program.wait_log("not restarted")
    with pytest.raises(Refused) as refused:
        acp.call(how)
    return str(refused.value)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "how",
    [
        "/restart",
        "_gateway-trio/restart",
        "SIGUSR1",
    ],
)
def test_case_15_a_restart_into_a_broken_config_is_refused_before_the_drain(how, fault, tmp_path):
    with Program(tmp_path, CONFIG) as program, program.chat() as chat, program.acp() as acp:
        if fault is None:
            program.config.unlink()
        else:
            program.config.write_text(fault)
        why = restart_is_refused(program, how, chat, acp)
        assert "not restarted, the new config is broken" in why
        assert {FAULTS[0]: "line 1", FAULTS[1]: "stop_budget_seconds", FAULTS[2]: "serve", None: "No such file"}[
            fault
        ] in why
        assert acp.call("_gateway-trio/status")["phase"] == "open"
        assert chat.ask("hello") == "hello"
        program.signal()
        assert program.wait() == 0
