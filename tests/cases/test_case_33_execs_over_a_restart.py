"""Cases 33, 32 and 10 over the end of a process: an exec has an audit row before its process and one at its end. One
that a crash cut off has an outcome that nobody knows; it is told, never run again, and what it left is named.

Each command writes a line to a file when it begins: that is what is counted.
"""

import contextlib
import json
import os
import re
import signal

import pytest
from processes import marked, wait_until
from restarts import ENDS, come_back, end, on_disk, rows, states, until_stored

from harness import Program, Refused, ours_of

COMMANDS = """
[quick_commands.stays]
type = "exec"
command = "echo $1 >> began; echo begun; sleep 1000"
cwd = "{folder}"
args = "text"
role = "user"

[quick_commands.secret]
type = "exec"
command = "echo secret >> began; echo the secret; sleep 1000"
cwd = "{folder}"

[quick_commands.leaves]
type = "exec"
command = "echo leaves >> began; setsid sleep 1000 & setsid sleep 1000 & echo begun; wait"
cwd = "{folder}"

[quick_commands.quick]
type = "exec"
command = "echo quick >> began; echo done"
cwd = "{folder}"

[quick_commands.gated]
type = "exec"
command = "echo gated >> began; echo begun; while ! test -e open; do sleep 0.05; done; echo done"
cwd = "{folder}"

[quick_commands.term]
type = "exec"
command = 'echo term >> began; kill -TERM "$PPID"; sleep 1; echo printed'
cwd = "{folder}"

[exec]
max_running = 3
"""


@pytest.fixture
def start(tmp_path):
    """Starts the gateway on the store of this test."""
    return lambda: Program(tmp_path, on_disk(tmp_path, COMMANDS.format(folder=tmp_path)))


@pytest.fixture(autouse=True)
def no_orphans(tmp_path):
    """Ends what a killed gateway's execs left behind."""
    yield
    for (exec_id,) in rows(tmp_path, "SELECT id FROM execs"):
        for pid in marked(exec_id):
            os.kill(pid, signal.SIGKILL)


def began(folder):
    path = folder / "began"
    return path.read_text().split() if path.exists() else []


def audit(folder):
    """Return the audit of each exec, oldest first: who, which command, words, state, and the facts of its end."""
    found = rows(
        folder,
        "SELECT w.principal, w.command, e.words, w.state, e.facts FROM works AS w JOIN execs AS e ON e.id = w.id "
        "ORDER BY w.n",
    )
    return [
        (who, command, json.loads(words), state, None if facts is None else json.loads(facts))
        for who, command, words, state, facts in found
    ]


def running(client, key):
    """Wait until the exec with this key has said something; return its id."""
    change = ours_of(client.until(lambda f: ours_of(f).get("exec", {}).get("key") == key))["exec"]
    client.until(lambda f: ours_of(f).get("execId") == change["id"] and "at" in ours_of(f))
    return change["id"]


def test_case_33_killed_in_mid_exec_the_outcome_is_unknown_and_what_it_left_is_named(start, tmp_path):
    with start() as program, program.acp() as client:
        session = client.new_session()
        client.ask_prompt(session, "/stays a b", key="k")
        client.ask_prompt(session, "/leaves", key="l")
        ids = {key: running(client, key) for key in "kl"}
        assert audit(tmp_path) == [
            ("local", "stays", ["a b"], "running", None),
            ("local", "leaves", [], "running", None),
        ], "the row is there before the end"
        wait_until(lambda: len(marked(ids["l"])) == 3)
        until_stored(tmp_path, "begun", 2)
        end(program, "killed")
    left = {key: set(marked(exec_id)) for key, exec_id in ids.items()}
    assert all(left.values())
    with start() as program:
        for key, exec_id in ids.items():
            line = json.loads(program.wait_log(f'"id": "{exec_id}"'))
            assert line["event"] == "exec with unknown outcome"
            assert set(line["orphans"]) == left[key] == set(marked(exec_id)), "named, and left alone"
        client, _ = come_back(program, session)
        with client:
            assert states(client, "exec") == {key: ["queued", "running", "interrupted"] for key in "kl"}
            assert client.text().count("begun\n") == 2
            told = re.findall(
                r"\[outcome unknown; (\d) process(?:es)? left running\] \(process ([\d, ]+)\)", client.text()
            )
            assert [(int(count), set(map(int, pids.split(", ")))) for count, pids in told] == [
                (len(left[key]), left[key]) for key in "kl"
            ]
            # The same key: the same exec, which has ended.
            facts = client.prompt(session, "/stays a b", key="k")["_meta"]["gateway-trio"]
            assert (facts["id"], facts["status"], facts["exitCode"]) == (ids["k"], "unknown", None)
            assert client.call("_gateway-trio/status")["execs"] == 0
            # Another key: another exec.
            client.prompt(session, "/quick", key="q")
        assert [(row[1], row[3], row[4]["status"]) for row in audit(tmp_path)] == [
            ("stays", "completed", "unknown"),
            ("leaves", "completed", "unknown"),
            ("quick", "completed", "exited"),
        ]
        end(program, "killed")
    with start() as program:
        assert "unknown outcome" not in program.text, "it was settled once"
        client, _ = come_back(program, session)
        with client:
            assert states(client, "exec")["k"] == ["queued", "running", "interrupted"]
    assert sorted(began(tmp_path)) == ["a", "b", "leaves", "quick"]


def test_case_33_one_that_waited_for_a_slot_did_not_run_and_does_not(start, tmp_path):
    with start() as program, program.acp() as client:
        session = client.new_session()
        for number in range(3):
            client.ask_prompt(session, f"/stays {number}", key=str(number))
            running(client, str(number))
        client.ask_prompt(session, "/quick", key="waits")
        client.until(lambda _: states(client, "exec").get("waits") == ["queued"])
        end(program, "killed")
    with start() as program:
        client, _ = come_back(program, session)
        with client:
            assert states(client, "exec")["waits"] == ["queued", "interrupted"]
            facts = client.prompt(session, "/quick", key="waits")["_meta"]["gateway-trio"]
            assert (facts["status"], facts["background"]) == ("unknown", 0)
    assert sorted(began(tmp_path)) == ["0", "1", "2"]


def test_case_33_one_that_belongs_to_no_session_is_audited_too(start, tmp_path):
    with start() as program, program.acp() as client:
        client.call("_gateway-trio/exec", {"name": "quick"})
        client.ask("_gateway-trio/exec", {"name": "stays", "args": ["a b"]})
        wait_until(lambda: began(tmp_path) == ["quick", "a", "b"])
        (done, runs) = audit(tmp_path)
        assert done[:4] == ("local", "quick", [], "completed")
        assert (done[4]["status"], done[4]["exitCode"]) == ("exited", 0)
        assert runs == ("local", "stays", ["a b"], "running", None)
        end(program, "killed")
    with start() as program:
        line = json.loads(program.wait_log("exec with unknown outcome"))
        assert line["orphans"] == marked(line["id"])
        assert [row[4]["status"] for row in audit(tmp_path)] == ["exited", "unknown"]
    assert began(tmp_path) == ["quick", "a", "b"]


TOKENS = """
[[auth.tokens]]
name = "ann"
role = "user"
env = "ANN_TOKEN"
[[auth.tokens]]
name = "ops"
role = "admin"
env = "OPS_TOKEN"
"""
ENV = {"ANN_TOKEN": "ann-0123456789abcdef", "OPS_TOKEN": "ops-0123456789abcdef"}


def test_case_33_what_only_admins_may_see_is_theirs_after_it_too(tmp_path):
    """An admin ran a secret command in a user's session: its prompt, its output, its unknown end are hidden."""
    config = on_disk(tmp_path, COMMANDS.format(folder=tmp_path) + TOKENS)

    def acp(program, name):
        return program.acp(additional_headers={"Authorization": f"Bearer {ENV[name]}"})

    def load(program, name):
        client = acp(program, name)
        client.call("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
        return client

    with Program(tmp_path, config, env=ENV) as program, acp(program, "OPS_TOKEN") as ops:
        ann = acp(program, "ANN_TOKEN")
        session = ann.new_session()
        ops.call("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
        ops.ask_prompt(session, "/secret", key="s")
        running(ops, "s")
        ann.ask_prompt(session, "/stays open", key="o")
        running(ann, "o")
        until_stored(tmp_path, "the secret")
        end(program, "killed")
    with contextlib.ExitStack() as stack:
        program = stack.enter_context(Program(tmp_path, config, env=ENV))
        with load(program, "OPS_TOKEN") as ops, load(program, "ANN_TOKEN") as ann:
            assert sorted(states(ops, "exec")) == ["o", "s"]
            assert "the secret" in ops.text()
            assert ops.text().count("outcome unknown") == 2
            assert states(ann, "exec") == {"o": ["queued", "running", "interrupted"]}
            assert ann.text().count("outcome unknown") == 1
            assert "secret" not in json.dumps(ann.frames)
            # A key leads nobody to what they may not see.
            with pytest.raises(Refused) as caught:
                ann.prompt(session, "/secret", key="new")
            assert caught.value.reason == "forbidden"
    assert sorted(began(tmp_path)) == ["open", "secret"]


@pytest.mark.parametrize("how", ENDS)
def test_case_32_a_client_that_was_not_answered_comes_back_after_it_with_its_key(how, start, tmp_path):
    with start() as program:
        client = program.acp()
        session = client.new_session()
        client.ask_prompt(session, "/gated", key="k")
        running(client, "k")
        until_stored(tmp_path, "begun")
        client.websocket.socket.shutdown(2)
        client.close()
        if how == "killed":
            end(program, how)
        (tmp_path / "open").touch()
        if how != "killed":
            end(program, how)
    status, state, said = (
        ("unknown", "interrupted", "begun\n[outcome unknown")
        if how == "killed"
        else ("exited", "completed", "begun\ndone\n")
    )
    for _ in range(2):
        with start() as program:
            client, _ = come_back(program, session)
            with client:
                assert states(client, "exec") == {"k": ["queued", "running", state]}
                assert client.text().startswith(said)
                answer = client.prompt(session, "/gated", key="k")
                assert answer["_meta"]["gateway-trio"]["status"] == status
                assert client.call("_gateway-trio/status")["execs"] == 0
            end(program, how)
    assert began(tmp_path) == ["gated"]
    assert [row[3] for row in audit(tmp_path)] == ["completed"]


def test_case_10_what_an_exec_said_that_ended_its_own_gateway_is_there_after_it(start, tmp_path):
    with start() as program, program.acp() as client:
        session = client.new_session()
        answer = client.prompt(session, "/term", key="k")
        assert client.text() == "printed\n"
        assert client.code == 1012
        assert program.wait() == 0
    (row,) = audit(tmp_path)
    assert (row[1], row[3], row[4]["status"], row[4]["exitCode"]) == ("term", "completed", "exited", 0)
    with start() as program:
        client, _ = come_back(program, session)
        with client:
            assert client.text() == "printed\n"
            assert client.prompt(session, "/term", key="k") == answer, "and it does not end this one"
            assert client.call("_gateway-trio/status")["phase"] == "open"
    assert began(tmp_path) == ["term"]
