"""Cases 9, 11, 15, 67, 69 where the process replaces itself: the port stays open, the number the same, no signal is lost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from processes import descriptors, wait_until

from harness import PATIENCE, Program, Refused

PROGRAMS = Path(__file__).parent / "programs"

CONFIG = """
[server]
port = 0
restart = "exec"
[agent]
words_per_second = 5
[drain]
grace_seconds = 10
[quick_commands.descriptors]
type = "exec"
command = "for each in /proc/self/fd/*; do readlink $each; done; echo end"
[quick_commands.restart-us]
type = "exec"
command = 'kill -USR1 "$PPID"'
"""


def lives(program: Program) -> int:
    return program.text.count('"event": "open"')


def restart(program: Program) -> None:
    """Restart the program in place, and return when the successor is open."""
    before = lives(program)
    program.signal(signal.SIGUSR1)
    wait_until(lambda: lives(program) > before)
    assert program.process.poll() is None


class Knocking:
    """Asks for a page again and again, each time on a connection of its own, and counts what came of it."""

    def __init__(self, port: int) -> None:
        self.answered = self.refused = self.dropped = 0
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._knock, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(PATIENCE)

    def _knock(self) -> None:
        while not self._over.wait(0.002):
            try:
                with socket.create_connection(("127.0.0.1", self._port), PATIENCE) as sock:
                    sock.sendall(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                    answer = sock.recv(4096)
            except ConnectionRefusedError:
                self.refused += 1
            except OSError:  # it was taken by one who closed just then
                self.dropped += 1
            else:
                self.answered += answer.startswith(b"HTTP/1.1 200")


# --- what stays -----------------------------------------------------------------------------------------


def test_case_69_two_restarts_in_a_row(tmp_path):
    with Program(tmp_path, CONFIG) as program, Knocking(program.port) as knocking:
        pid = program.pid
        for _ in range(2):
            with program.chat() as chat, program.acp() as acp:
                assert chat.ask("hello") == "hello"
                answered = knocking.answered
                chat.send("/restart")
                assert chat.code == acp.code == 1012
                # Who is back before the successor is there waits for it.
                with program.chat() as again:
                    assert again.ask("/status").startswith("phase open, 0 turns")
                assert program.report["reason"] == "restart", "written before the exec"
            wait_until(lambda answered=answered: knocking.answered > answered)
        assert program.process.poll() is None
        assert program.text.count(f"gateway-trio, pid {pid}:") == 3
        program.signal()
        assert program.wait() == 0
    assert "Traceback" not in program.text


def test_case_69_nobody_is_refused_while_it_restarts(tmp_path):
    with Program(tmp_path, CONFIG) as program:
        with Knocking(program.port) as knocking:
            for _ in range(3):
                restart(program)
        assert knocking.refused == 0
        assert knocking.answered > 0


def test_case_69_ten_restarts_leave_no_descriptor_behind(tmp_path):
    with Program(tmp_path, CONFIG) as program:
        before = descriptors(program.pid)
        for _ in range(10):
            restart(program)
        wait_until(lambda: descriptors(program.pid) == before)
        with program.chat() as chat:
            assert "socket:" not in chat.ask("/descriptors"), "no child has the port"


def test_case_69_directory_streams_and_words_are_the_same(tmp_path):
    def seen(what):
        return os.readlink(f"/proc/{program.pid}/{what}")

    with Program(tmp_path, CONFIG) as program:
        things = ("cwd", "exe", "fd/0", "fd/1", "fd/2")
        before = [seen(thing) for thing in things]
        words = Path(f"/proc/{program.pid}/cmdline").read_text().split("\0")[1:]
        restart(program)
        assert [seen(thing) for thing in things] == before
        assert Path(f"/proc/{program.pid}/cmdline").read_text().split("\0")[1:] == words


def test_case_09_an_exec_that_restarts_its_own_gateway_in_place(tmp_path):
    with Program(tmp_path, CONFIG) as program, program.chat() as chat:
        chat.send("/restart-us")
        assert chat.code == 1012
        with program.chat() as again:
            assert again.ask("hello") == "hello"
        assert lives(program) == 2, "and no loop of restarts"


@pytest.mark.parametrize("env", [{}, {"SYSTEMD_EXEC_PID": "1"}])
def test_case_69_without_a_supervisor_it_replaces_itself_by_default(env, tmp_path):
    with Program(tmp_path, '[server]\nport = 0\nrestart = "auto"\n', env=env) as program:
        restart(program)
        program.signal()
        assert program.wait() == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def test_case_69_another_port_in_the_config_is_another_port(tmp_path):
    with Program(tmp_path, CONFIG) as program:
        old, new = program.port, free_port()
        program.config.write_text(CONFIG.replace("port = 0", f"port = {new}"))
        restart(program)
        assert '"used": false' in program.wait_log("sockets were handed over")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", old), PATIENCE)
        program.port = new
        with program.chat() as chat:
            assert chat.ask("hello") == "hello"
        restart(program)  # and that one goes over in its turn
        assert program.get("/livez")[0] == 200


def test_case_11_a_turn_that_ignores_its_end_does_not_keep_its_gateway_from_the_next_life(tmp_path):
    config = CONFIG.replace("grace_seconds = 10", "grace_seconds = 0.1\ncleanup_seconds = 0.1")
    with Program(tmp_path, config, script=PROGRAMS / "stubborn.py") as program:
        for what in ("shield", "thread"):
            with program.acp() as acp:
                acp.ask_prompt(acp.new_session(), what)
                acp.until_state("running")
                before = lives(program)
                program.signal(signal.SIGUSR1)
                assert acp.code == 1012
            wait_until(lambda before=before: lives(program) > before)
            assert len(program.report["turns_abandoned"]) == 1
        with program.chat() as chat:
            assert "phase open, 0 turns" in chat.ask("/status")


# --- what is refused ------------------------------------------------------------------------------------


def test_case_15_a_restart_into_a_broken_program_is_refused_before_the_drain(tmp_path):
    script = tmp_path / "program.py"
    script.write_text("from gateway_trio.__main__ import main\nmain()\n")
    with Program(tmp_path, CONFIG, script=script) as program, program.chat() as chat, program.acp() as acp:
        script.write_text("from gateway_trio.__main__ import main\nmain(\n")
        assert "SyntaxError" in chat.ask("/restart")
        with pytest.raises(Refused, match="not restarted, the program would not come up again:\nexit code 1: "):
            acp.call("_gateway-trio/restart")
        assert acp.call("_gateway-trio/status")["phase"] == "open"
        script.write_text("from gateway_trio.__main__ import main\nmain()\n")
        restart(program)


def test_case_15_a_new_config_that_needs_what_is_not_installed_is_refused(tmp_path):
    folder = tmp_path / "path"
    folder.mkdir()
    (folder / "openai.py").write_text("raise ModuleNotFoundError('No module named openai', name='openai')\n")
    env = {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    with Program(tmp_path, CONFIG, env=env) as program, program.chat() as chat:
        agent = '[agent]\ntype = "openai"\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\n'
        program.config.write_text(CONFIG.replace("[agent]\nwords_per_second = 5\n", agent))
        assert "pip install 'gateway-trio[openai]'" in chat.ask("/restart")
        assert chat.ask("hello") == "hello"


def test_case_15_a_new_config_that_would_open_the_gateway_to_all_is_refused(tmp_path):
    with Program(tmp_path, CONFIG) as program, program.chat() as chat:
        program.config.write_text(CONFIG.replace("port = 0", 'port = 0\nhost = "0.0.0.0"'))
        assert "there are no tokens" in chat.ask("/restart")
        assert chat.ask("hello") == "hello"


def test_case_15_where_the_exec_itself_fails_it_exits_for_its_supervisor(tmp_path):
    """The interpreter goes away between the check and the exec."""
    python = tmp_path / "python"
    python.symlink_to(os.path.realpath(sys.executable))
    paths = os.pathsep.join(p for p in sys.path if p)
    config = tmp_path / "gateway.toml"
    config.write_text(CONFIG)
    config.chmod(0o600)
    with subprocess.Popen(
        [python, "-m", "gateway_trio", "serve", "--config", config], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": paths},
    ) as process:  # fmt: skip
        try:
            program = Program.__new__(Program)
            program.port = int(process.stdout.readline().split("ws://")[1].split("/")[0].rsplit(":", 1)[1])
            with program.acp() as acp:
                acp.ask_prompt(acp.new_session(), "word " * 30)
                acp.until_state("running")
                process.send_signal(signal.SIGUSR1)
                acp.until(lambda f: f.get("params", {}).get("phase") == "draining")
                python.unlink()
                assert acp.code == 1012
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 75, errors
    assert "the process could not be replaced" in errors
    assert "Traceback" not in errors


# --- signals on the way ---------------------------------------------------------------------------------

#: Functions, in the order in which a process on its way to its successor comes by them.
MOMENTS = [
    "drain", "close_sockets", "cancel_dump_traceback_later", "hold", "_block_in_threads", "write_report", "_redeliver_remaining", "leave", "execve",
    "successor",
]  # fmt: skip


@pytest.mark.parametrize("moment", MOMENTS)
def test_case_67_a_sigterm_on_the_way_to_the_successor_is_obeyed(moment, tmp_path):
    env = {"MOMENT": moment, "MARK": str(tmp_path / "mark")}
    with Program(tmp_path, CONFIG, script=PROGRAMS / "replaced.py", env=env) as program:
        program.signal(signal.SIGUSR1)
        assert program.wait() == 0, program.text
        assert '"signal": "SIGTERM"' in program.text
        assert "Traceback" not in program.text


def test_case_67_a_restart_while_it_starts_begins_anew(tmp_path):
    script = tmp_path / "again.py"
    mark = tmp_path / "mark"
    script.write_text(
        "import os, pathlib, signal\n"
        f"mark = pathlib.Path({str(mark)!r})\n"
        "if not mark.exists():\n"
        "    mark.touch()\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n"
        "    os.kill(os.getpid(), signal.SIGUSR1)\n"
        "from gateway_trio.__main__ import main\nmain()\n"
    )
    with Program(tmp_path, CONFIG, script=script) as program:
        assert program.text.count('"signal": "SIGUSR1"') == 1
        assert program.get("/livez")[0] == 200
        program.signal()
        assert program.wait() == 0


# --- sockets of a socket unit ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["exec", "exit"])
def test_a_socket_units_socket_is_listened_on_wherever_it_is(how, tmp_path):
    config = CONFIG.replace("port = 0", "port = 1").replace('restart = "exec"', f'restart = "{how}"')
    with Program(tmp_path, config, script=PROGRAMS / "activated.py", env={"KIND": "listening"}) as program:
        assert program.port != 1
        with program.chat() as chat:
            assert chat.ask("hello") == "hello"
            assert "socket:" not in chat.ask("/descriptors")
            assert "LISTEN" not in chat.ask("/descriptors")
        if how == "exec":
            restart(program)
            assert program.get("/livez")[0] == 200
        program.signal()
        assert program.wait() == 0


@pytest.mark.parametrize("kind", ["udp", "connected", "file"])
def test_what_is_no_listening_socket_is_refused(kind, tmp_path):
    env = {"KIND": kind}
    with Program(tmp_path, CONFIG, script=PROGRAMS / "activated.py", env=env, ready=False) as program:
        assert program.wait() == 78
        assert "does not start" in program.text
        assert "Traceback" not in program.text


def test_a_units_socket_that_all_can_reach_takes_tokens_too(tmp_path):
    env = {"KIND": "listening", "AT": "0.0.0.0"}
    with Program(tmp_path, CONFIG, script=PROGRAMS / "activated.py", env=env, ready=False) as program:
        assert program.wait() == 78
        assert "there are no tokens" in program.text


def test_sockets_for_another_process_are_left_alone(tmp_path):
    env = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    with Program(tmp_path, CONFIG, env=env) as program:
        assert "handed over" not in program.text
        assert program.get("/livez")[0] == 200
