"""Cases 18, 34, 39, 65, 66, 67: what the program does with its config, its address, its terminal and an early end."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import wait_until

from gateway_trio.config import ConfigError, parse_config
from harness import PATIENCE, Program

EX_CONFIG = 78
PROGRAMS = Path(__file__).parent / "programs"


def start(tmp_path, config: str, command: str = "serve") -> subprocess.CompletedProcess:
    """Run a program that must not start, to its end."""
    path = tmp_path / "gateway.toml"
    path.write_text(config)
    path.chmod(0o600)
    arguments = ["serve", "--config", path] if command == "serve" else ["check", path]
    return subprocess.run(
        [sys.executable, "-m", "gateway_trio", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def is_refused(tmp_path, config: str, *parts: str) -> str:
    """Assert that `serve` and `check` exit with 78 and say all of these; return what was said."""
    for command in ("serve", "check"):
        ended = start(tmp_path, config, command)
        assert ended.returncode == EX_CONFIG, ended
        for part in parts:
            assert part in ended.stderr
        assert "Traceback" not in ended.stderr
    return ended.stderr


def faults_of(config: str) -> str:
    """Return what is said of a config, without a process."""
    with pytest.raises(ConfigError) as caught:
        parse_config(config, environ={})
    return str(caught.value)


# --- 18 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "sum_"),
    [
        ("[drain]\nstop_budget_seconds = 30\n", "= 58"),
        ("[drain]\ngrace_seconds = 23\n", "= 61"),
        ("[drain]\ncleanup_seconds = 8\n", "= 61"),
        ("[drain]\nexec_seconds = 28\n", "= 61"),
        ("[drain]\nclose_seconds = 6\n", "= 61"),
        ("[exec]\nterm_seconds = 5\n", "= 61"),
        ("[drain]\nstop_budget_seconds = 57.9\n", "= 58"),
    ],
)
def test_case_18_parts_that_do_not_fit_into_the_budget_are_refused_at_start(config, sum_, tmp_path):
    fault = ("drain.stop_budget_seconds", "must be at least grace", sum_)
    said = faults_of(config)
    assert all(part in said for part in fault)
    if "stop_budget" in config:
        is_refused(tmp_path, config, *fault)


def test_case_18_parts_that_just_fit_are_taken(tmp_path):
    with Program(tmp_path, "[drain]\nstop_budget_seconds = 58\n") as program:
        program.signal()
        assert program.wait() == 0


# --- 34 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 2])
def test_case_34_ctrl_c_lets_running_execs_finish(times, tmp_path):
    """At a real terminal, which sends the signal to the whole foreground group."""
    config = tmp_path / "gateway.toml"
    gate = tmp_path / "gate"
    config.write_text(
        "[server]\nport = 0\n[store]\ntype = 'memory'\n[quick_commands.wait]\ntype = 'exec'\n"
        f"command = 'echo waiting; while [ ! -e {gate} ]; do sleep 0.1; done; echo waited'\n"
    )
    config.chmod(0o600)
    report = tmp_path / "report.json"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(
            sys.executable,
            [sys.executable, "-m", "gateway_trio", "serve", "--config", str(config), "--report", str(report)],
        )
    try:
        said = b""
        while b"/acp" not in said or b"\n" not in said.split(b"/acp")[-1]:
            said += os.read(terminal, 1000)
        port = int(said.split(b"ws://127.0.0.1:")[1].split(b"/")[0])
        program = Program.__new__(Program)
        program.port = port
        with program.chat() as chat, program.acp() as acp:
            id_ = acp.ask_prompt(acp.new_session(), "/wait")
            acp.until(lambda _: "waiting" in acp.text())
            os.write(terminal, b"\x03")
            chat.until("· draining (shutdown)")
            if times == 2:
                time.sleep(0.3)  # repeats within a quarter of a second are one; nothing tells that it is over
                os.write(terminal, b"\x03")
            gate.touch()
            assert acp.answer(id_)["_meta"]["gateway-trio"]["status"] == "exited"
            assert acp.text() == "waiting\nwaited\n"
            assert acp.code == chat.code == 1012
        end = time.monotonic() + PATIENCE
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            assert time.monotonic() < end
            try:
                os.read(terminal, 1000)
            except OSError:  # the other side of the terminal is closed
                ended = os.waitpid(pid, 0)
                break
        pid = 0
        assert os.waitstatus_to_exitcode(ended[1]) == 0
        told = json.loads(report.read_text())
        assert (told["asked_by"], told["execs_finished"], told["execs_killed"]) == ("SIGINT", 1, 0)
    finally:
        gate.touch()
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(terminal)


# --- 39 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "0", "0x0"])
def test_case_39_an_address_off_loopback_without_tokens_is_refused(host, tmp_path):
    ended = start(tmp_path, f'[server]\nport = 0\nhost = "{host}"\n')
    assert ended.returncode == EX_CONFIG
    assert "whoever reaches this gateway is its admin" in ended.stderr
    assert repr(host) in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "/acp" not in ended.stdout, "it never said that it serves"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3", "LOCALHOST"])
def test_case_39_loopback_addresses_start(host, tmp_path):
    with Program(tmp_path, f'[server]\nport = 0\nhost = "{host}"\n') as program:
        address = json.loads(program.wait_log('"event": "open"'))["addresses"][0].rsplit(":", 1)
        assert (
            address[0] == {"::1": "::1", "127.1.2.3": "127.1.2.3"}.get(host, "127.0.0.1")
            or host.lower() == "localhost"
        )
        with socket.create_connection((address[0], int(address[1])), PATIENCE) as sock:
            name = f"[{address[0]}]" if ":" in address[0] else address[0]
            sock.sendall(f"GET /livez HTTP/1.1\r\nHost: {name}:{address[1]}\r\n\r\n".encode())
            assert sock.recv(100).startswith(b"HTTP/1.1 200")
        program.signal()
        assert program.wait() == 0


@pytest.mark.parametrize("host", ["", "http://127.0.0.1", "no.such.host.invalid", "192.0.2.1"])
def test_case_39_a_host_that_is_none_is_refused_with_the_reason(host, tmp_path):
    ended = start(tmp_path, f'[server]\nport = 0\nhost = "{host}"\n')
    assert ended.returncode == EX_CONFIG
    assert "server.host" in ended.stderr or host in ended.stderr
    assert "Traceback" not in ended.stderr


def test_case_39_a_port_in_use_is_refused_with_the_reason(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = start(tmp_path, f"[server]\nport = {port}\n")
    assert ended.returncode == EX_CONFIG
    assert f"port {port}" in ended.stderr
    assert "Traceback" not in ended.stderr


# --- 65, 66 ---------------------------------------------------------------------------------------------

BROKEN = """
server = [1, 2]
sesion = {}
[drain]
grace_seconds = "20"
clean_seconds = 5
[exec]
max_runing = 3
[agent]
type = "ecko"
[quick_commands.a]
type = "exec"
command = 7
[quick_commands.b]
type = "alias"
target = "/nowhere"
[quick_commands.help]
type = "exec"
command = "true"
"""


def test_case_65_every_fault_at_once_with_its_path_and_the_nearest_key(tmp_path):
    said = is_refused(
        tmp_path,
        BROKEN,
        "server", "sesion", "drain.grace_seconds", "drain.clean_seconds", "exec.max_runing", "agent.type",
        "quick_commands.a.command", "quick_commands.b.target", "quick_commands.help",
    )  # fmt: skip
    for near in ("session", "cleanup_seconds", "max_running", "echo"):
        assert near in said


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ("server = []", "server"),
        ('drain = "soon"', "drain"),
        ("quick_commands = 3", "quick_commands"),
        ("[[session]]\nbusy = 'queue'", "session"),
        ("[server]\nport = '80'", "server.port"),
        ("[server]\nport = 80.5", "server.port"),
        ("[server]\nport = true", "server.port"),
        ("[server]\nport = 70000", "server.port"),
        ("[server]\nhosts = 'a.example'", "server.hosts"),
        ("[session]\nbusy = 'wait'", "session.busy"),
        ("[session]\nqueue_limit = -1", "session.queue_limit"),
        ("[agent]\nwords_per_second = 'fast'", "agent.words_per_second"),
        ("[quick_commands]\nx = 'uptime'", "quick_commands.x"),
        ("[quick_commands.x]\ncommand = 'uptime'", "quick_commands.x.type"),
        ("[quick_commands.x]\ntype = 'exec'\ncommand = ['uptime']", "quick_commands.x.command"),
        ("[quick_commands.x]\ntype = 'exec'\ncommand = 'a'\nenv = {A = 1}", "quick_commands.x.env"),
        ("[server\n", "line 1"),
        ("a = 1\na = 2\n", "line 2"),
    ],
)
def test_case_65_each_kind_of_fault(config, path):
    assert path in faults_of(config)


SECONDS = [
    "drain.grace_seconds", "drain.stop_budget_seconds", "server.send_seconds", "session.turn_idle_seconds",
    "exec.term_seconds", "quick_commands.x.timeout_seconds",
]  # fmt: skip


@pytest.mark.parametrize("value", ['"30s"', '"30"', "inf", "-inf", "nan", "-1", "0", "true", "[30]", "1979-05-27"])
def test_case_66_seconds_are_finite_numbers_above_zero(value, tmp_path):
    tables: dict[str, list[str]] = {}
    for path in SECONDS:
        table, _, key = path.rpartition(".")
        tables.setdefault(table, []).append(f"{key} = {value}")
    tables["quick_commands.x"] += ['type = "exec"', 'command = "true"']
    config = "\n".join(line for table, lines in tables.items() for line in (f"[{table}]", *lines))
    said = faults_of(config) if value != "nan" else is_refused(tmp_path, config)
    for path in SECONDS:
        assert path in said


def test_case_66_whole_and_broken_numbers_are_taken(tmp_path):
    with Program(tmp_path, "[drain]\ngrace_seconds = 1\ncleanup_seconds = 0.25\n") as program:
        program.signal()
        assert program.wait() == 0


# --- 67 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "moments"), [(signal.SIGTERM, 12), (signal.SIGINT, 4), (signal.SIGUSR1, 4)])
def test_case_67_a_signal_while_starting_is_kept(number, moments, tmp_path):
    """At many moments of the start: the program ends as told, or, before its first line, by the signal."""
    wanted = 75 if number == signal.SIGUSR1 else 0
    codes = []
    for moment in itertools.count():
        with Program(tmp_path, ready=False) as program:
            time.sleep(0.6 * moment / moments)  # a moment, not a wait for something
            program.signal(number)
            codes.append(program.wait())
        if codes[-1] == 1:  # Python's own interrupt, of its start, before our first line
            assert "KeyboardInterrupt" in program.text
            assert number == signal.SIGINT
        else:
            assert codes[-1] in {wanted, -number}
            assert "Traceback" not in program.text or codes[-1] == -number
        if moment >= moments and wanted in codes:  # on a slow machine the first line comes late
            break


BLOCKED = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, {NUMBER})
os.kill(os.getpid(), NUMBER)
from gateway_trio.__main__ import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_case_67_a_signal_from_before_the_imports_is_not_lost(number, tmp_path):
    script = tmp_path / "blocked.py"
    script.write_text(BLOCKED.replace("NUMBER", str(int(number))))
    with Program(tmp_path, ready=False, script=script) as program:
        assert program.wait() == (75 if number == signal.SIGUSR1 else 0)
        assert '"event": "open"' not in program.text, "it never opened"
        assert "/acp" not in program.text
        assert "Traceback" not in program.text
        assert sorted(tmp_path.iterdir()) == sorted([program.config, script]), "nothing half made"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGUSR1, 75)])
def test_case_67_a_signal_while_the_disk_does_not_answer_ends_the_start(number, code, tmp_path):
    """It is held up in opening its store, here by one that starts on the same one and was stopped in the middle."""
    held = tmp_path / "gateway.db.starting"
    with held.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        config = f'[server]\nrestart = "exit"\n[drain]\nstop_budget_seconds = 1000\n[store]\npath = "{tmp_path}/gateway.db"\n'
        with Program(tmp_path, config, ready=False) as program:
            descriptors = Path(f"/proc/{program.pid}/fd")
            wait_until(lambda: any(os.path.realpath(link) == str(held) for link in descriptors.iterdir()))
            program.signal(number)
            assert program.wait() == code
            assert "Traceback" not in program.text


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 0), ("SIGUSR1", 75)])
def test_case_67_a_signal_shortly_before_opening_is_kept(number, code, tmp_path):
    config = tmp_path / "gateway.toml"
    config.write_text('[server]\nport = 0\nrestart = "exit"\n')
    config.chmod(0o600)
    ended = subprocess.run(
        [sys.executable, PROGRAMS / "early.py", number, config, tmp_path / "report.json"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert f"codes [{code}]\n" in ended.stdout, ended
