"""`gateway-trio chat`, at a real terminal and behind a pipe, with a real gateway."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from harness import PATIENCE, Program
from terminal import Terminal

CTRL_C, CTRL_D = "\x03", "\x04"
LONG = " ".join(f"w{n}." for n in range(400))

CONFIG = """
[agent]
type = "echo"
words_per_second = 50

[quick_commands.uptime]
type = "exec"
command = "echo up for long"

[quick_commands.ticks]
type = "exec"
command = "for n in $(seq 200); do echo tick $n of 200; sleep 0.2; done"
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    with Program(tmp_path_factory.mktemp("gateway"), CONFIG) as program:
        yield program


@pytest.fixture
def at(program, tmp_path):
    """Return what opens a terminal with the chat; all of a test have the same state directory."""

    def open_terminal(*args, port=program.port):
        url = () if port is None else ("--url", f"ws://127.0.0.1:{port}")
        return Terminal("chat", *url, *args, env={"XDG_STATE_HOME": str(tmp_path)})

    return open_terminal


@pytest.fixture
def behind(program, tmp_path):
    """Return what runs the chat behind a pipe."""

    def run(lines, *args, port=program.port, env=None):
        return subprocess.run(
            [sys.executable, "-m", "gateway_trio", "chat", *args],
            input=lines,
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
            env={
                **os.environ,
                "XDG_STATE_HOME": str(tmp_path),
                "GATEWAY_TRIO_URL": f"ws://127.0.0.1:{port}",
                **(env or {}),
            },
        )

    return run


def test_what_is_said_is_shown_as_it_comes_and_ctrl_c_stops_it(at):
    with at() as terminal:
        terminal.until("· connected")
        terminal.press("/ticks\r")
        terminal.until("tick 1 of 200")
        terminal.until("tick 4 of 200")
        terminal.press(CTRL_C)
        terminal.until("· stopping")
        terminal.until("[cancelled")
        assert "tick 200" not in terminal.text
        terminal.press("/uptime\r")
        terminal.until("up for long")
        terminal.press(CTRL_D)
        assert terminal.leave() == 0


def test_ctrl_c_stops_a_turn_as_soon_as_it_is_sent(at):
    with at() as terminal:
        terminal.until("· connected")
        terminal.press(f"{LONG}\r{CTRL_C}")
        terminal.until("· stopping")
        terminal.until("· cancelled")
        terminal.press(CTRL_D)
        assert terminal.leave() == 0


def test_ctrl_c_leaves_where_nothing_runs_but_first_clears_the_line(at):
    with at() as terminal:
        terminal.until("· connected")
        terminal.press("some words")
        terminal.until("some words")
        terminal.press(CTRL_C)
        terminal.press("/whoami\r")
        terminal.until("local")
        terminal.press(CTRL_C)
        assert terminal.leave() == 0


def test_a_second_ctrl_c_leaves_whatever_runs(at):
    with at() as terminal:
        terminal.until("· connected")
        terminal.press(f"{LONG}\r")
        terminal.until("w399.")
        terminal.until("w1.")
        terminal.press(CTRL_C + CTRL_C)
        assert terminal.leave() == 0


def test_ctrl_c_stops_what_was_begun_last_time(at):
    with at() as terminal:
        terminal.until("· connected")
        terminal.press(f"{LONG}\r")
        terminal.until("w399.")
        terminal.until("w1.")
        terminal.press(CTRL_D)
        assert terminal.leave() == 0
    with at() as terminal:
        terminal.until("w2.")
        terminal.press(CTRL_C)
        terminal.until("· cancelled")
        terminal.press(CTRL_D)
        assert terminal.leave() == 0


def test_commands_are_completed(at):
    with at() as terminal:
        terminal.until("· connected")
        terminal.press("/statu\t")
        terminal.until("/statu")
        terminal.until("s")
        terminal.press("\r")
        terminal.until("phase open")
        terminal.press("/upt\t")
        terminal.until("/upt")
        terminal.until("ime")
        terminal.press("\r")
        terminal.until("up for long")
        terminal.press(CTRL_D)
        assert terminal.leave() == 0


def test_what_is_no_character_is_told_and_not_sent(at):
    with at() as terminal:
        terminal.until("· connected")
        terminal.press("bad \udcff\r")
        terminal.until("· this was not sent")
        terminal.press("good\r")
        terminal.until("> good")
        terminal.until("good")
        terminal.press(CTRL_D)
        assert terminal.leave() == 0


def test_it_goes_on_in_the_session_of_last_time(at, tmp_path):
    with at() as terminal:
        terminal.until("· connected")
        terminal.press("remember the milk\r")
        terminal.until("milk")
        terminal.until("milk")
        terminal.press(CTRL_D)
        assert terminal.leave() == 0
    with at() as terminal:
        terminal.until("· connected")
        terminal.press("/history\r")
        terminal.until("remember the milk")
        terminal.press("\x1b[A\x1b[A")  # twice up, in what was typed before
        terminal.until("remember the milk")
        terminal.press(CTRL_C + CTRL_D)
        assert terminal.leave() == 0
    with at("--new") as terminal:
        terminal.until("· connected")
        terminal.press("/history\r/whoami\r")
        assert "milk" not in terminal.until("local")
        terminal.press(CTRL_D)
        assert terminal.leave() == 0
    assert (tmp_path / "gateway-trio" / "history").stat().st_mode & 0o777 == 0o600


def test_two_terminals_on_a_session_see_both(at):
    with at("--session", "shared") as first:
        first.until("· connected")
        with at("--session", "shared") as second:
            second.until("· connected")
            first.press("from the first\r")
            second.until("> from the first")
            second.until("from the first")
            second.press(CTRL_D)
            assert second.leave() == 0
        first.press(CTRL_D)
        assert first.leave() == 0


def test_somebody_who_ends_it_gets_the_terminal_back(at):
    with at() as terminal:
        terminal.until("· connected")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.leave() == 128 + signal.SIGTERM


def test_a_restart_is_a_quiet_line(at, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    config = f"[server]\nport = {port}\n{CONFIG}"
    with Program(tmp_path, config) as gateway, at(port=port) as terminal:
        terminal.until("· connected")
        terminal.press("/drain\r")
        terminal.until("· draining (operator)")
        terminal.press("hello\r")
        terminal.until("draining; nothing was sent")
        terminal.press("/undrain\r")
        terminal.until("· open again")
        gateway.signal(signal.SIGUSR1)
        terminal.until("· restarting …")
        assert gateway.wait() == 75
        terminal.press("said meanwhile\r")
        terminal.until("said meanwhile")
        with Program(tmp_path, config):
            assert "restarting" not in terminal.until("· back"), "once"
            terminal.until("said meanwhile")
            terminal.press("are you there\r")
            terminal.until("are you there")
            terminal.until("are you there")
            terminal.press(CTRL_D)
            assert terminal.leave() == 0


def test_where_it_is_over_it_says_so_and_leaves(at, tmp_path):
    with Program(
        tmp_path, '[[auth.tokens]]\nname = "ann"\nrole = "user"\nenv = "ANN"\n', env={"ANN": "anns-token"}
    ) as gateway:
        env = {"XDG_STATE_HOME": str(tmp_path), "GATEWAY_TRIO_TOKEN": "anns-token"}
        with Terminal("chat", "--url", f"ws://127.0.0.1:{gateway.port}", env=env) as terminal:
            terminal.until("· connected")
            gateway.config.write_text(gateway.config.read_text().replace('"ann"', '"tim"'))
            gateway.signal(signal.SIGHUP)
            terminal.until("4501")
            assert terminal.leave() == 69
            assert "anns-token" not in terminal.text


# --- behind a pipe ----------------------------------------------------------------------------------------


def test_a_pipe_is_read_line_by_line(behind):
    run = behind("hello there\n\n/uptime\n/nope\nlast")
    assert run.returncode == 0
    first, second, third, *more = run.stdout.splitlines()
    assert (first, second) == ("hello there", "up for long")
    assert third.startswith("There is no command /nope")
    assert more[-1] == "last"
    assert run.stderr == ""


def test_what_would_move_the_cursor_is_taken_out(behind):
    run = behind("red \x1b[31malert\x07\n")
    assert (run.returncode, run.stdout) == (0, "red [31malert\n")


def test_a_prompt_that_comes_to_nothing_is_told_and_counts(behind, program):
    run = behind("/drain\nhello\n/undrain\n")
    assert run.returncode == 1
    assert "· The gateway is draining" in run.stderr
    run = behind("hello\n")
    assert (run.returncode, run.stdout) == (0, "hello\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_somebody_who_ends_a_pipe_ends_it(program, tmp_path, number):
    with subprocess.Popen(
        [sys.executable, "-m", "gateway_trio", "chat", "--url", f"ws://127.0.0.1:{program.port}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
    ) as chat:
        chat.stdin.write(b"hello\n")
        chat.stdin.flush()
        assert chat.stdout.readline() == b"hello\n"
        chat.send_signal(number)
        assert chat.wait(PATIENCE) == 128 + number
        assert chat.stderr.read() == b""


def test_a_line_that_is_too_long_is_not_sent(behind):
    run = behind("x" * 1_200_000)
    assert (run.returncode, run.stdout) == (65, "")
    assert "longer than" in run.stderr


def test_a_token_that_can_be_none_is_told(behind):
    run = behind("hello\n", env={"GATEWAY_TRIO_TOKEN": "a b"})
    assert (run.returncode, run.stdout) == (78, "")
    assert "a token is" in run.stderr


def test_what_the_output_has_no_character_for_is_replaced(behind):
    run = behind("ten € and more\nthe next\n", env={"PYTHONIOENCODING": "latin-1"})
    assert (run.returncode, run.stdout, run.stderr) == (0, "ten ? and more\nthe next\n", "")


def test_without_a_place_to_keep_anything_it_works(behind, tmp_path):
    (tmp_path / "file").write_text("")
    run = behind("hello\n", env={"XDG_STATE_HOME": str(tmp_path / "file")})
    assert (run.returncode, run.stdout) == (0, "hello\n")
    assert "nothing is kept" in run.stderr


def test_where_nobody_is(behind):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        run = behind("hello\n", port=taken.getsockname()[1])
    assert run.returncode == 69
    assert "cannot connect" in run.stderr
    assert run.stdout == ""


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (("--url", "http://localhost"), "ws://"),
        (("--url", "ws://a..b:1"), "1 to 63"),
        (("--config", "/nowhere/gateway.toml"), "gateway.toml"),
    ],
)
def test_what_cannot_be_used(behind, args, word):
    run = behind("hello\n", *args)
    assert run.returncode == 78
    assert word in run.stderr


@pytest.mark.parametrize("url", ["ws://user:SEKRET@127.0.0.1:1", "ws://127.0.0.1:1?token=SEKRET"])
def test_a_secret_in_a_url_is_not_shown(behind, url):
    run = behind("hello\n", "--url", url)
    assert (run.returncode, run.stdout) == (78, "")
    assert "a token goes beside it" in run.stderr
    assert "SEKRET" not in run.stderr


def test_a_token_is_needed_where_there_are_tokens(behind, tmp_path):
    with Program(
        tmp_path, '[[auth.tokens]]\nname = "ann"\nrole = "user"\nenv = "ANN"\n', env={"ANN": "anns-token"}
    ) as gateway:
        for env, code in (
            ({}, 77),
            ({"GATEWAY_TRIO_TOKEN": "not-hers"}, 77),
            ({"GATEWAY_TRIO_TOKEN": "anns-token"}, 0),
        ):
            run = behind("hello\n", port=gateway.port, env=env)
            assert run.returncode == code
            assert "not-hers" not in run.stdout + run.stderr
        config = behind("hello\n", "--config", str(gateway.config), env={"GATEWAY_TRIO_TOKEN": "anns-token"})
        assert config.returncode == 78, "its token's variable is not set here, and its port is 0"
