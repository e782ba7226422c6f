"""Cases 19 to 22, 24 to 26, 31: limits of a command's time, what it leaves behind, and what it says at its end."""

import os
import signal

import pytest
from processes import marked, wait_until

from harness import Acp, Program, ours_of

CONFIG = """
[exec]
term_seconds = 1

[quick_commands.long]
type = "exec"
command = "sleep 3141; echo never"
timeout_seconds = 1

[quick_commands.longer]
type = "exec"
command = "sleep 3141; echo never"
timeout_seconds = 3000

[quick_commands.long-argv]
type = "exec"
argv = ["sleep", "3141"]
timeout_seconds = 1

[quick_commands.long-silent-pipe]
type = "exec"
command = "exec >/dev/null 2>&1; sleep 3141"
timeout_seconds = 1

[quick_commands.stubborn]
type = "exec"
command = "trap '' TERM; echo trapped; sleep 300; sleep 300"
timeout_seconds = 1

[quick_commands.stopped]
type = "exec"
command = "kill -STOP $$; echo never"
timeout_seconds = 1

[quick_commands.keeps]
type = "exec"
command = "sleep 60 & echo started"

[quick_commands.ends]
type = "exec"
command = "sleep 60 & echo started"
background = "kill"

[quick_commands.left-group]
type = "exec"
command = "setsid sleep 3000 & sleep 3000"
timeout_seconds = 1

[quick_commands.left-group-fifty]
type = "exec"
command = "i=0; while [ $i -lt 50 ]; do setsid sleep 3000 & i=$((i+1)); done; sleep 3000"
timeout_seconds = 2

[quick_commands.leaves-fifty]
type = "exec"
command = "i=0; while [ $i -lt 50 ]; do setsid sleep 3000 & i=$((i+1)); done; sleep 1"

[quick_commands.ends-fifty]
type = "exec"
command = "i=0; while [ $i -lt 50 ]; do setsid sleep 3000 & i=$((i+1)); done; sleep 1"
background = "kill"

[quick_commands.fails]
type = "exec"
command = "echo partial; echo why >&2; exit 7"

[quick_commands.dies]
type = "exec"
command = "echo partial; kill -9 $$"

[quick_commands.bytes]
type = "exec"
command = '''printf '\\377\\376 a\\303\\251 \\303' '''

[quick_commands.cat]
type = "exec"
command = "cat"

[quick_commands.reads]
type = "exec"
command = 'read x; echo "read said $?, got [$x]"'

[quick_commands.bad-cwd]
type = "exec"
command = "true"
cwd = "/nowhere/at/all"

[quick_commands.no-program]
type = "exec"
argv = ["/nowhere/program"]

[quick_commands.not-executable]
type = "exec"
argv = ["/etc/passwd"]
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    with Program(tmp_path_factory.mktemp("gateway"), CONFIG) as program:
        yield program


@pytest.fixture
def client(program):
    with program.acp() as client:
        yield client


def run(client: Acp, command: str) -> dict:
    """Run a command in a session of its own; return the facts, with what it said as `text`."""
    client.frames.clear()
    session = client.new_session()
    answer = client.prompt(session, command)
    assert answer["stopReason"] == "end_turn"
    return {**answer["_meta"]["gateway-trio"], "text": client.text()}


def end(exec_id: str) -> int:
    """End what a command left running, as it was told to; return how many there were."""
    left = marked(exec_id)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not marked(exec_id))
    return len(left)


@pytest.mark.parametrize("name", ["long", "long-argv", "long-silent-pipe"])
def test_case_19_a_limit_ends_the_command_and_its_children(client, name):
    facts = run(client, f"/{name}")
    assert facts["status"] == "timeout"
    assert 1 <= facts["seconds"] < 60
    assert "timed out" in facts["text"]
    assert "never" not in facts["text"]
    assert marked(facts["id"]) == []


def test_case_19_kill_ends_what_a_client_that_has_gone_started(program):
    with program.acp() as first:
        session = first.new_session()
        first.ask_prompt(session, "/longer")
        exec_id = ours_of(first.until_state("running"))["exec"]["id"]
        wait_until(lambda: len(marked(exec_id)) == 2)
    with program.acp() as second:
        second.call("session/load", {"sessionId": session, "cwd": "/"})
        second.prompt(session, "/ps")
        assert exec_id in second.text()
        second.prompt(session, f"/kill {exec_id}")
        ended = ours_of(second.until_state("cancelled"))["exec"]
        assert (ended["id"], ended["status"]) == (exec_id, "killed")
        assert marked(exec_id) == []
        second.frames.clear()
        second.prompt(session, "/ps")
        assert exec_id not in second.text()


def test_case_20_one_that_ignores_term_is_killed(client):
    facts = run(client, "/stubborn")
    assert facts["status"] == "timeout"
    assert facts["seconds"] >= 2  # its limit, and `term_seconds`
    assert facts["signal"] == 9
    assert facts["text"].startswith("trapped\n")
    assert marked(facts["id"]) == []


def test_case_20_one_that_was_stopped_ends_too(client):
    facts = run(client, "/stopped")
    assert facts["status"] == "timeout"
    assert "never" not in facts["text"]
    assert marked(facts["id"]) == []


def test_case_21_what_runs_on_is_said(client):
    facts = run(client, "/keeps")
    try:
        assert (facts["status"], facts["exitCode"], facts["background"]) == ("exited", 0, 1)
        assert facts["seconds"] < 60
        assert facts["text"].startswith("started\n")
        assert "1 process left running" in facts["text"]
    finally:
        assert end(facts["id"]) == 1


def test_case_21_or_it_is_ended_and_that_is_said(client):
    facts = run(client, "/ends")
    assert (facts["status"], facts["exitCode"], facts["background"]) == ("exited", 0, 1)
    assert facts["text"].startswith("started\n")
    assert "1 process it had left running was ended" in facts["text"]
    assert marked(facts["id"]) == []


@pytest.mark.parametrize("name", ["left-group", "left-group-fifty"])
def test_case_22_children_that_left_the_group_end_with_it(client, name):
    facts = run(client, f"/{name}")
    assert (facts["status"], facts["background"]) == ("timeout", 0)
    assert marked(facts["id"]) == []


def test_case_22_children_that_left_the_group_are_counted(client):
    kept = run(client, "/leaves-fifty")
    try:
        assert (kept["status"], kept["background"]) == ("exited", 50)
        assert "50 processes left running" in kept["text"]
    finally:
        assert end(kept["id"]) == 50
    ended = run(client, "/ends-fifty")
    assert (ended["status"], ended["background"]) == ("exited", 50)
    assert marked(ended["id"]) == []


def test_case_24_all_it_said_in_order_and_its_code(client):
    facts = run(client, "/fails")
    assert facts["text"].startswith("partial\nwhy\n")
    assert (facts["status"], facts["exitCode"]) == ("exited", 7)
    assert "exit code 7" in facts["text"]
    facts = run(client, "/dies")
    assert facts["text"].startswith("partial\n")
    assert (facts["status"], facts["exitCode"], facts["signal"]) == ("signalled", None, 9)


def test_case_24_on_chat_too(program):
    with program.chat() as chat:
        answer = chat.ask("/fails")
        assert answer.startswith("partial\nwhy\n")
        assert "exit code 7" in answer


def test_case_25_bytes_that_are_no_text_are_replaced(client):
    assert run(client, "/bytes")["text"] == "\ufffd\ufffd aé \ufffd"


def test_case_26_there_is_no_input(client):
    facts = run(client, "/cat")
    assert (facts["status"], facts["exitCode"], facts["text"]) == ("exited", 0, "[no output]")
    assert run(client, "/reads")["text"] == "read said 1, got []\n"


def test_case_31_each_fault_has_its_own_message(client):
    said = {}
    for name, words in (
        ("bad-cwd", "directory '/nowhere/at/all'"),
        ("no-program", "program not found: '/nowhere/program'"),
        ("not-executable", "not executable: '/etc/passwd'"),
    ):
        facts = run(client, f"/{name}")
        assert (facts["status"], facts["exitCode"]) == ("spawn_failed", None)
        assert words in facts["error"]
        assert facts["error"] in facts["text"]
        said[name] = facts["error"]
    assert len(set(said.values())) == 3
