"""The program: signals, exit codes, the report, `check`, and the examples; each with a real process."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from websockets.sync.client import connect

from harness import PATIENCE, Program, alive, ours_of

ROOT = Path(__file__).parent.parent

COMMANDS = """
[agent]
words_per_second = 2
[drain]
grace_seconds = 30
cleanup_seconds = 5
exec_seconds = 15
close_seconds = 3
[quick_commands.pid]
type = "exec"
command = "echo $$; exec sleep 3141"
timeout_seconds = 600
[quick_commands.hi]
type = "exec"
command = "echo hi"
"""


def cli(*args, **more) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "gateway_trio", *args], capture_output=True, text=True, timeout=PATIENCE, **more
    )


def start_turn(program: Program, client) -> None:
    """Start a turn that outlasts the test."""
    client.ask_prompt(client.new_session(), "word " * 1000)
    client.until(lambda f: ours_of(f).get("turn", {}).get("state") == "running")


def start_exec(program: Program, client) -> int:
    """Start the long exec and return the process id that it printed."""
    session = client.new_session()
    client.ask_prompt(session, "/pid")
    client.until(lambda f: client.text().endswith("\n"))
    return int(client.text())


def test_it_runs_and_exits_0_where_nobody_reads_what_it_prints(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    (tmp_path / "gateway.toml").write_text("[server]\nport = 0\n")
    command = [sys.executable, "-m", "gateway_trio", "serve", "--config", str(tmp_path / "gateway.toml")]
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    with subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=env) as process:
        os.close(writing)
        try:
            for line in process.stderr:
                if '"open"' in line and '"addresses"' in line:
                    break
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_drains_and_exits_0(tmp_path, number):
    with Program(tmp_path, COMMANDS) as program, program.chat() as chat:
        assert chat.ask("hello") == "hello"
        program.signal(number)
        assert chat.code == 1012
        assert program.wait() == 0
        report = program.report
    assert report["asked_by"] == number.name
    assert report["connections_told"] == report["connections_closed"] == 1
    assert sum(report["phases"].values()) == pytest.approx(report["total_seconds"], abs=0.01)


def test_a_restart_exits_75(tmp_path):
    with Program(tmp_path, COMMANDS) as program, program.chat() as chat:
        assert chat.ask("hello") == "hello"
        program.signal(signal.SIGUSR1)
        assert chat.code == 1012
        assert program.wait() == 75
        assert program.report["reason"] == "restart"


def test_a_shutdown_during_a_restart_exits_0(tmp_path):
    with Program(tmp_path, COMMANDS) as program, program.chat() as chat, program.acp() as acp:
        start_turn(program, acp)
        program.signal(signal.SIGUSR1)
        chat.until("draining (restart)")
        program.signal(signal.SIGTERM)
        chat.until("draining (restart, shutdown)")
        second_signal(program, signal.SIGTERM, before=2)
        assert chat.code == 1012
        assert program.wait() == 0


def test_a_burst_of_signals_is_one(tmp_path):
    with Program(tmp_path, COMMANDS) as program, program.chat() as chat, program.acp() as acp:
        start_turn(program, acp)
        for _ in range(5):
            program.signal(signal.SIGTERM)
        chat.until("draining")
        assert chat.ask("/hi") == "hi\n"  # neither the second nor the third signal's doing was done
        assert "phase draining, 1 turn" in chat.ask("/status")


def second_signal(program: Program, number: int, before: int = 1) -> None:
    """Send a signal that is none of the burst before it: a log line says when that was long enough ago.

    `before` is how many came before it; what they did can be seen before their lines are read.
    """
    end = time.monotonic() + PATIENCE
    while len(lines := [json.loads(line) for line in list(program.log) if '"event": "signal"' in line]) < before:
        assert time.monotonic() < end, program.text
        program.get("/livez")
    last = dt.datetime.fromisoformat(lines[-1]["timestamp"].replace("Z", "+00:00"))
    while (dt.datetime.now(dt.UTC) - last).total_seconds() < 0.3:
        program.get("/livez")
    program.signal(number)


def test_a_second_signal_cancels_turns_and_leaves_execs_a_little_time(tmp_path):
    with Program(tmp_path, COMMANDS) as program, program.chat() as chat, program.acp() as acp:
        pid = start_exec(program, acp)
        start_turn(program, acp)
        program.signal()
        chat.until("draining")
        second_signal(program, signal.SIGTERM)
        assert chat.code == acp.code == 1012
        assert program.wait() == 0
        report = program.report
    assert not alive(pid)
    assert report["turns_interrupted"] == 1
    assert report["execs_killed"] == 1
    assert report["phases"]["draining"] < 25  # the grace is 30


def test_a_third_signal_ends_it_at_once_with_every_exec(tmp_path):
    with Program(tmp_path, COMMANDS) as program, program.acp() as acp:
        pid = start_exec(program, acp)
        start_turn(program, acp)
        program.signal()
        acp.until(lambda f: f.get("params", {}).get("phase") == "draining")
        second_signal(program, signal.SIGTERM)
        acp.until(lambda f: f.get("params", {}).get("phase") == "finishing")
        second_signal(program, signal.SIGINT, before=2)
        assert program.wait() == 128 + signal.SIGINT
        assert not alive(pid)


def test_a_port_that_is_taken_is_said_and_exits_78(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Program(tmp_path, f"[server]\nport = {port}", ready=False) as program:
            assert program.wait() == 78
            assert f"port {port}" in program.text


def test_a_report_that_cannot_be_written_is_said(tmp_path):
    with Program(tmp_path) as program:
        program.report_path.mkdir()
        program.signal()
        assert program.wait() == 0
        assert "the report could not be written" in program.text


def test_start_says_that_it_forgets_and_who_is_admin(tmp_path):
    with Program(tmp_path) as program:
        program.wait_log("forgotten at exit")
        program.wait_log("everyone on loopback is admin")


def test_a_secret_too_short_to_hide_is_said(tmp_path):
    config = '[quick_commands.show]\ntype = "exec"\ncommand = "echo $SHORT_ONE"'
    with Program(tmp_path, config, env={"SHORT_ONE": "1234567"}) as program:
        line = program.wait_log("too short")
        assert "SHORT_ONE" in line
        assert "1234567" not in program.text


def test_check(tmp_path):
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text("[agent]\nwords_per_second = 9\n")
    bad.write_text("[agnet]\n[server]\nport = '80'\n")
    for path in (good, bad):
        path.chmod(0o600)
    assert cli("check", good).returncode == 0
    refused = cli("check", bad)
    assert refused.returncode == 78
    assert "agnet" in refused.stderr
    assert "server.port" in refused.stderr
    assert cli("check", tmp_path / "none.toml").returncode == 78


def test_the_example_config_is_good():
    assert cli("check", ROOT / "examples" / "gateway.toml").returncode == 0


def test_the_package_loads_nothing_heavy_by_itself():
    script = "import sys, gateway_trio; print('trio' in sys.modules, 'attrs' in sys.modules)"
    assert subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE
    ).stdout.split() == ["False", "False"]
    script = "import gateway_trio; print(all(getattr(gateway_trio, n) for n in gateway_trio.__all__))"
    assert (
        subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE
        ).stdout.strip()
        == "True"
    )


@pytest.fixture
def example(request):
    """The program of examples/ with this name, and its port; it ends well at Ctrl-C."""
    script = f"import sys, trio; sys.path.insert(0, sys.argv[1]); import {request.param}; trio.run({request.param}.main, 0)"
    program = subprocess.Popen(
        [sys.executable, "-c", script, ROOT / "examples"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield program, int(program.stdout.readline().rpartition(",")[2].strip(" )\n"))
        said, errors = program.communicate(timeout=PATIENCE)
    finally:
        program.kill()
        program.wait()
    assert program.returncode == 0, errors
    assert "drained in" in said


@pytest.mark.parametrize(
    ("example", "said"),
    [
        ("embed", [("be loud", ["BE LOUD "]), ("/uptime", ["load"])]),
        (
            "careful",
            [
                ("delete x", ["· delete x", "· the agent asks: delete x (/allow p5, /deny p5)"]),
                (
                    "/allow",
                    ["Allowed p5: delete x (Allow).", "· p5 was answered by local: Allow", "Done: delete x"],
                ),
            ],
        ),
    ],
    indirect=["example"],
)
def test_an_example(example, said):
    program, port = example
    with connect(f"ws://127.0.0.1:{port}/chat") as chat:
        for text, answers in said:
            chat.send(text)
            for answer in answers:
                assert answer in chat.recv(PATIENCE)
        os.kill(program.pid, signal.SIGINT)
        with pytest.raises(Exception, match="1012"):
            while True:
                chat.recv(PATIENCE)
