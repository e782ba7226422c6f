"""Cases 30 and 32: many execs at once, agents that hold threads, and a client that drops its socket."""

import threading

import pytest
import trio
from processes import wait_until

from gateway_trio.config import Config, ExecCommand
from gateway_trio.testing import ScriptedAgent, open_gateway
from harness import Program, Refused, ours_of

CONFIG = """
[exec]
max_running = 4
max_waiting = 6

[quick_commands.gate]
type = "exec"
command = 'echo x >>began; while [ ! -e open ]; do sleep 0.05; done; echo through'
cwd = "@HERE@"
timeout_seconds = 300

[quick_commands.count]
type = "exec"
command = 'echo x >>began; while [ ! -e open ]; do sleep 0.05; done; wc -l <began'
cwd = "@HERE@"
timeout_seconds = 300
"""


@pytest.fixture
def here(tmp_path):
    here = tmp_path / "here"
    here.mkdir()
    return here


@pytest.fixture
def program(tmp_path, here):
    with Program(tmp_path, CONFIG.replace("@HERE@", str(here))) as program:
        yield program


def began(here):
    file = here / "began"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_case_30_two_hundred_at_once(program, here):
    with program.acp() as client, program.acp() as second:
        ids = [client.ask("_gateway-trio/exec", {"name": "gate"}) for _ in range(200)]
        busy = []
        for id_ in ids[10:]:
            with pytest.raises(Refused) as refusal:
                client.answer(id_)
            busy.append(refusal.value)
        assert {(b.code, b.reason, b.data["admitted"], b.data["retryable"]) for b in busy} == {
            (-32011, "busy", False, True)
        }
        wait_until(lambda: began(here) == 4)
        # Neither turns nor other commands starve.
        session = second.new_session()
        assert second.prompt(session, "hello")["stopReason"] == "end_turn"
        second.prompt(session, "/ps")
        lines = second.text().partition("hello")[2].splitlines()
        assert sorted(line.split()[2] for line in lines) == ["queued"] * 6 + ["running"] * 4
        with pytest.raises(Refused) as refusal:
            second.prompt(session, "/gate")
        assert refusal.value.reason == "busy"
        assert second.call("_gateway-trio/status")["execs"] == 10
        assert began(here) == 4
        (here / "open").touch()
        for id_ in ids[:10]:
            answer = client.answer(id_)
            assert (answer["status"], answer["output"]) == ("exited", "through\n")
        assert second.call("_gateway-trio/status")["execs"] == 0
        assert began(here) == 10


async def test_case_30_agents_that_hold_forty_threads_do_not_hold_an_exec():
    freed, blocked = threading.Event(), trio.Semaphore(0)

    async def blocks(turn, emit):
        blocked.release()
        await turn.run_sync(freed.wait)

    config = Config(quick_commands={"t": ExecCommand("t", command="true")})
    with trio.fail_after(60):
        async with open_gateway(config, agent=(agent := ScriptedAgent({"block": [blocks]}))) as lab:
            client = await lab.acp()
            try:
                turns = []
                for _ in range(45):
                    session = await client.new_session()
                    turns.append(await client.ask_prompt(session, "block"))
                for _ in range(45):
                    await blocked.acquire()
                facts = await client.call("_gateway-trio/exec", {"name": "t"})
                assert (facts["status"], facts["exitCode"]) == ("exited", 0)
                assert agent.running == 45
            finally:
                freed.set()
            for turn in turns:
                assert (await client.answer(turn))["stopReason"] == "end_turn"


@pytest.mark.parametrize("how", ["closed", "broken"])
def test_case_32_a_client_that_comes_back_with_its_key(program, here, how):
    first = program.acp()
    session = first.new_session()
    first.ask_prompt(session, "/count", key="k")
    seq = ours_of(first.until_state("running"))["exec"]["seq"]
    wait_until(lambda: began(here) == 1)
    if how == "closed":
        first.close()
    else:
        first.websocket.socket.shutdown(2)
        first.close()
    wait_until(lambda: program.get("/livez")[1].count('"connections": 0') == 1)
    with program.acp() as second:
        second.call("session/resume", {"sessionId": session, "cwd": "/"})
        again = second.ask_prompt(session, "/count", key="k")
        second.call("_gateway-trio/status")
        (here / "open").touch()
        answer = second.answer(again)
        assert answer["stopReason"] == "end_turn"
        assert answer["_meta"]["gateway-trio"]["exitCode"] == 0
        assert began(here) == 1
        # And after its end.
        assert second.prompt(session, "/count", key="k") == answer
        assert began(here) == 1
        assert second.call("_gateway-trio/status")["execs"] == 0
    with program.acp() as third:
        third.call("session/load", {"sessionId": session, "cwd": "/"})
        assert third.text().strip() == "1"
        shown = [ours_of(f)["exec"] for f in third.frames if "exec" in ours_of(f)]
        assert [change["state"] for change in shown] == ["queued", "running", "completed"]
        assert {change["seq"] for change in shown} == {seq}
