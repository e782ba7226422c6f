"""Cases 1, 5, 8, 10: exec and control commands answer in every phase before `closing`, in a real process."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from restarts import ENDS, end, on_disk

from harness import Program, Refused, alive, ours_of

STUBBORN = Path(__file__).parent / "programs" / "stubborn.py"

CONFIG = """
[agent]
words_per_second = 2
[drain]
grace_seconds = 30
cleanup_seconds = 5
exec_seconds = 15
close_seconds = 3
[quick_commands.cleanup]
type = "exec"
command = "echo cleaned; echo why >&2"
[quick_commands.fails]
type = "exec"
command = "echo partial; echo why >&2; exit 7"
[quick_commands.dies]
type = "exec"
command = "echo partial; kill -SEGV $$"
[quick_commands.slow]
type = "exec"
command = "echo partial; sleep 300"
timeout_seconds = 0.5
[quick_commands.missing]
type = "exec"
argv = ["/no/such/program"]
[quick_commands.wait]
type = "exec"
command = "echo waiting; while [ ! -e GATE ]; do sleep 0.1; done; echo waited"
[quick_commands.term]
type = "exec"
command = 'kill -TERM "$PPID"; sleep 1; echo printed'
[quick_commands.interrupt-it]
type = "exec"
command = 'kill -INT "$PPID"; sleep 1; echo printed'
"""
LONG = "one two three four five six seven eight nine ten " * 6  # half a minute


def drain(program: Program, how: str, operator) -> None:
    if how.startswith("SIG"):
        program.signal(getattr(signal, how))
    else:
        operator.send(f"/{how}")


@pytest.mark.parametrize("how", ["drain for a look", "restart", "SIGTERM", "SIGINT", "SIGUSR1"])
def test_case_01_exec_answers_in_mid_turn_while_draining(how, tmp_path):
    with (
        Program(tmp_path, CONFIG) as program,
        program.chat() as chat,
        program.chat("other") as other,
        program.chat("operator") as operator,
        program.acp() as acp,
    ):
        session = acp.new_session()
        chat.send(LONG)
        turn = acp.ask_prompt(session, LONG)
        acp.until_state("running")
        drain(program, how, operator)
        for client in (chat, other):
            client.until("· draining")
        acp.until(lambda f: (f.get("params") or {}).get("phase") == "draining")
        for client in (chat, other):
            assert client.ask("/cleanup") == "cleaned\nwhy\n"
        assert acp.prompt(session, "/cleanup")["_meta"]["gateway-trio"]["exitCode"] == 0
        once = acp.call("_gateway-trio/exec", {"name": "cleanup", "args": []})
        assert (once["status"], once["output"]) == ("exited", "cleaned\nwhy\n")
        status = acp.call("_gateway-trio/status")
        assert (status["phase"], status["turns"], status["execs"]) == ("draining", 2, 0)
        assert not any(f.get("id") == turn for f in acp.frames), "the turn runs on"
        # It was no text for the model: the turns say what they were asked to, and nothing else runs.
        assert LONG.startswith(acp.text().replace("cleaned\nwhy\n", "").strip())
        assert "cleanup" not in chat.ask("/history")


def test_case_01_exec_answers_while_turns_are_being_recorded_and_while_execs_end(tmp_path):
    """In `cancelling`, with an agent that ignores it, and in `finishing`, beside another exec."""
    config = CONFIG.replace("grace_seconds = 30", "grace_seconds = 0.5").replace(
        "cleanup_seconds = 5", "cleanup_seconds = 3"
    )
    gate = tmp_path / "gate"
    config = config.replace("GATE", str(gate))
    with Program(tmp_path, config, script=STUBBORN) as program:
        with program.chat() as chat, program.acp() as acp:
            session = acp.new_session()
            acp.ask_prompt(session, "shield")
            acp.until_state("running")
            program.signal()

            def until_phase(phase):
                acp.until(lambda f: (f.get("params") or {}).get("phase") == phase)
                assert chat.ask("/cleanup") == "cleaned\nwhy\n"
                assert (
                    acp.call("_gateway-trio/exec", {"name": "cleanup", "args": []})["output"] == "cleaned\nwhy\n"
                )
                assert acp.prompt(session, "/cleanup")["stopReason"] == "end_turn"
                assert acp.call("_gateway-trio/status")["phase"] == phase

            until_phase("cancelling")
            waits = acp.ask_prompt(session, "/wait")  # keeps `finishing` from ending
            acp.until(lambda f: ours_of(f).get("turn", {}).get("state") == "interrupted")
            again = acp.ask_prompt(session, "/wait")
            until_phase("finishing")
            gate.touch()
            for id_ in (waits, again):
                assert acp.answer(id_)["_meta"]["gateway-trio"]["exitCode"] == 0
            assert acp.text().count("waiting\nwaited\n") == 2
            assert acp.code == chat.code == 1012
        assert program.wait() == 0
        assert program.report["execs_killed"] == 0


NUMBERS = re.compile(r"\d+\.\d+ s")


def test_case_05_a_failing_exec_is_reported_the_same_while_draining(tmp_path):
    with Program(tmp_path, CONFIG) as program, program.chat() as chat, program.acp() as acp:
        session = acp.new_session()

        def reports():
            said, told = {}, {}
            for name in ("fails", "dies", "slow", "missing"):
                said[name] = NUMBERS.sub("N s", chat.ask(f"/{name}"))
                facts = acp.prompt(session, f"/{name}")["_meta"]["gateway-trio"]
                once = acp.call("_gateway-trio/exec", {"name": name, "args": []})
                for answer in (facts, once):
                    answer.pop("id"), answer.pop("seconds")
                once["output"] = NUMBERS.sub("N s", once["output"])
                told[name] = (facts, once)
            return said, told

        before = reports()
        assert before[0]["fails"] == "partial\nwhy\n[exit code 7 after N s]"
        assert {name: facts["status"] for name, (facts, _) in before[1].items()} == {
            "fails": "exited", "dies": "signalled", "slow": "timeout", "missing": "spawn_failed",
        }  # fmt: skip
        chat.send(LONG)
        acp.until(lambda _: acp.call("_gateway-trio/status")["turns"] == 1)
        program.signal(signal.SIGUSR1)
        chat.until("· draining")
        assert reports() == before


@pytest.mark.parametrize("how", ["drain", "SIGTERM"])
def test_case_08_who_comes_after_the_drain_began_may_watch_and_operate(how, tmp_path):
    with Program(tmp_path, CONFIG) as program:
        with program.acp() as first, program.chat("operator") as operator:
            session = first.new_session()
            turn = first.ask_prompt(session, LONG)
            first.until_state("running")
            with program.chat("mine") as chat:
                chat.send(LONG)
                first.until(lambda _: first.call("_gateway-trio/status")["turns"] == 2)
            drain(program, how, operator)
            operator.until("· draining")
            assert program.get("/readyz")[0] == 503
            assert program.get("/livez")[0] == 200
            with program.chat("mine") as late, program.acp() as watcher:
                assert late.take().startswith("· draining")
                assert late.ask("/cleanup") == "cleaned\nwhy\n"
                assert late.ask("/status").startswith("phase draining, 2 turns")
                assert "this session: a turn runs" in late.ask("/status")
                assert late.ask("/history").startswith("you: one two three")
                # It sees the turn grow.
                watcher.call("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
                seen = len(watcher.text())
                watcher.until(lambda _: len(watcher.text()) > seen)
                assert not any(f.get("id") == turn for f in first.frames)
                # And stops one.
                assert late.ask("/stop") == "Stopping the turn that runs."
                late.until("· cancelled")
                watcher.notify("session/cancel", {"sessionId": session})
                assert first.answer(turn) == {"stopReason": "cancelled"}
                if how == "SIGTERM":
                    assert late.code == watcher.code == first.code == 1012
        if how == "SIGTERM":
            assert program.wait() == 0


@pytest.mark.parametrize("command", ["/term", "/interrupt-it"])
@pytest.mark.parametrize("road", ["chat", "acp", "request"])
def test_case_10_an_exec_that_ends_its_own_gateway_is_delivered(command, road, tmp_path):
    with Program(tmp_path, CONFIG) as program:
        if road == "chat":
            with program.chat() as chat:
                chat.send(command)
                assert chat.until("printed")[-1] == "printed\n"
                assert chat.code == 1012
        else:
            with program.acp() as acp:
                if road == "acp":
                    assert acp.prompt(acp.new_session(), command)["_meta"]["gateway-trio"]["exitCode"] == 0
                    assert acp.text() == "printed\n"
                else:
                    once = acp.call("_gateway-trio/exec", {"name": command[1:], "args": []})
                    assert (once["status"], once["output"]) == ("exited", "printed\n")
                assert acp.code == 1012
        assert program.wait() == 0
        assert (
            program.report["execs_running"],
            program.report["execs_finished"],
            program.report["execs_killed"],
        ) == (1, 1, 0)
        assert not alive(program.pid)


def test_case_10_an_exec_that_is_cut_by_the_deadline_is_told_too(tmp_path):
    config = CONFIG.replace("exec_seconds = 15", "exec_seconds = 1")
    config += '[quick_commands.stays]\ntype = "exec"\ncommand = \'kill -TERM "$PPID"; echo begun; sleep 300\'\n'
    with Program(tmp_path, config) as program, program.acp() as acp:
        result = acp.prompt(acp.new_session(), "/stays")
        assert result["_meta"]["gateway-trio"]["status"] == "deadline"
        assert acp.text().startswith("begun\n[ended after ")
        assert acp.code == 1012
        assert program.wait() == 0
        assert program.report["execs_killed"] == 1


@pytest.mark.parametrize("how", ENDS)
def test_case_08_who_comes_while_it_drains_is_shown_what_is_of_an_earlier_life(how, tmp_path):
    """What a session was before the gateway was started anew is read from the disk, also in a drain."""
    config = on_disk(tmp_path, CONFIG.replace("words_per_second = 2", "words_per_second = 30"))
    with Program(tmp_path, config) as program, program.chat("mine") as chat:
        assert chat.ask("hello") == "hello"
        end(program, how)
    with Program(tmp_path, config) as program, program.acp() as first:
        session = first.new_session()
        first.ask_prompt(session, LONG * 10)
        first.until_state("running")
        program.signal(signal.SIGTERM)
        with program.chat("mine") as late, program.acp() as watcher:
            assert late.take().startswith("· draining")
            assert late.ask("/history") == "you: hello\nagent: hello"
            assert late.ask("/cleanup") == "cleaned\nwhy\n"
            assert late.ask("/stop") == "There is nothing to stop."
            assert late.ask("/status").startswith("phase draining, 1 turn")
            (mine,) = [s for s in watcher.call("session/list")["sessions"] if s["title"] == "mine"]
            watcher.call("session/load", {"sessionId": mine["sessionId"], "cwd": "/", "mcpServers": []})
            assert watcher.text() == "hello" + "cleaned\nwhy\n"
            with pytest.raises(Refused) as caught:
                watcher.prompt(mine["sessionId"], "more")
            assert (caught.value.reason, caught.value.data["admitted"]) == ("draining", False)
            first.notify("session/cancel", {"sessionId": session})
            assert late.code == watcher.code == first.code == 1012
        assert program.wait() == 0
