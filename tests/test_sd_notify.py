"""sd_notify(3), to a socket as systemd has it: what a real process says, in which order."""

from __future__ import annotations

import os
import re
import signal
import socket

import pytest

from gateway_trio.sd_notify import Notifier
from harness import PATIENCE, Program
from test_process import second_signal, start_turn

SLOW = """
[server]
port = 0
restart = "{restart}"
[agent]
words_per_second = 2
[drain]
grace_seconds = 30
cleanup_seconds = 5
exec_seconds = 15
[quick_commands.env]
type = "exec"
command = "env; echo end"
"""
EXTEND = "EXTEND_TIMEOUT_USEC=N"
OPEN = ["READY=1", "STATUS=Open"]


class Systemd:
    """The socket of a service manager. `heard` has the datagrams, each as its lines, big numbers as N."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[list[str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.settimeout(PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def take(self) -> list[str]:
        text = self._socket.recv(4096).decode()
        lines = [re.sub(r"USEC=\d{7,}$", "USEC=N", line) for line in text.split("\n")]
        self.heard.append([re.sub(r"at most \d+ s", "at most N s", line) for line in lines])
        return self.heard[-1]

    def until(self, line: str) -> list[list[str]]:
        """Return what was heard up to a datagram with this line, and forget it."""
        while line not in self.take():
            pass
        heard, self.heard = self.heard, []
        return heard


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path):
    name = f"@gateway-trio-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with Systemd(name) as systemd:
        yield systemd


def start(systemd, tmp_path, restart="auto", **env) -> Program:
    return Program(tmp_path, SLOW.format(restart=restart), env={"NOTIFY_SOCKET": systemd.address, **env})


def draining(why, turns="0 turns"):
    return f"STATUS=Draining ({why}): no new prompts; {turns} to end, at most N s"


def the_rest(why, cancelled="0 cancelled turns"):
    return [
        [f"STATUS=Draining ({why}): recording {cancelled}"],
        [f"STATUS=Draining ({why}): 0 execs to end, at most N s"],
        [f"STATUS=Closing ({why})"],
    ]


def test_a_drain(systemd, tmp_path):
    with start(systemd, tmp_path) as program:
        assert systemd.take() == OPEN
        program.signal()
        assert program.wait() == 0
        said = systemd.until("STATUS=Closing (shutdown)")
    assert said[1:] == [["STOPPING=1", EXTEND, draining("shutdown")], *the_rest("shutdown")]


def test_a_second_signal(systemd, tmp_path):
    with start(systemd, tmp_path) as program, program.acp() as acp:
        assert systemd.until("READY=1") == [OPEN]
        start_turn(program, acp)
        program.signal()
        assert systemd.take() == ["STOPPING=1", EXTEND, draining("shutdown", "1 turn")]
        second_signal(program, signal.SIGTERM)
        assert acp.code == 1012
        assert program.wait() == 0
        said = systemd.until("STATUS=Closing (shutdown)")
    # The deadlines are others now, and that is told; STOPPING and the budget are not told again.
    assert said[1:] == [[draining("shutdown", "1 turn")], *the_rest("shutdown", "1 cancelled turn")]


@pytest.mark.parametrize("restart", ["exit", "exec"])
def test_a_drain_that_is_taken_back_leaves_nothing_behind(restart, systemd, tmp_path):
    with start(systemd, tmp_path, restart) as program, program.acp() as acp, program.chat() as chat:
        assert systemd.take() == OPEN
        start_turn(program, acp)
        program.signal(signal.SIGUSR1)
        assert systemd.take() == [draining("restart", "1 turn")]
        chat.send("/undrain")
        assert systemd.take() == ["STATUS=Open"]
        chat.send("/drain")
        assert systemd.take() == [
            "STATUS=Draining (operator): no new prompts until that is taken back; 1 turn to end"
        ]


def test_a_restart_that_exits_stops(systemd, tmp_path):
    with start(systemd, tmp_path) as program:  # by default: somebody speaks this protocol, and starts us again
        assert systemd.take() == OPEN
        program.signal(signal.SIGUSR1)
        assert program.wait() == 75
        said = systemd.until("STATUS=Closing (restart)")
    recording, *rest = the_rest("restart")
    assert said[1:] == [[draining("restart")], ["STOPPING=1", EXTEND, *recording], *rest]


def test_a_restart_in_place_reloads_and_never_stops(systemd, tmp_path):
    with start(systemd, tmp_path, "exec") as program:
        assert systemd.take() == OPEN
        for _ in range(2):
            program.signal(signal.SIGUSR1)
            said = systemd.until("READY=1")
            recording, *rest = the_rest("restart")
            reloads = ["RELOADING=1", "MONOTONIC_USEC=N", EXTEND, *recording]
            assert said[-5:] == [[draining("restart")], reloads, *rest, OPEN]
        program.signal()
        assert program.wait() == 0
        assert ["STOPPING=1", EXTEND, draining("shutdown")] in systemd.until("STATUS=Closing (shutdown)")


def test_a_sign_of_life(systemd, tmp_path):
    with start(systemd, tmp_path, WATCHDOG_USEC="100000") as program:
        for _ in range(3):
            systemd.until("WATCHDOG=1")
        program.signal()
        assert program.wait() == 0


def test_an_exec_knows_nothing_of_it(systemd, tmp_path):
    with start(systemd, tmp_path, WATCHDOG_USEC="60000000") as program, program.chat() as chat:
        said = chat.ask("/env")
        assert said.endswith("end\n")
        assert "NOTIFY_SOCKET" not in said
        assert "WATCHDOG" not in said


@pytest.mark.parametrize("address", ["/no/such/socket", "@nobody-listens-here", "vsock:2:1234", "/" + "x" * 200])
def test_a_supervisor_that_is_not_there_hurts_nobody(address, tmp_path):
    with Program(tmp_path, env={"NOTIFY_SOCKET": address}) as program, program.chat() as chat:
        assert chat.ask("hello") == "hello"
        program.signal()
        assert program.wait() == 0
        assert program.text.count("the supervisor could not be told") == 1
        assert "Traceback" not in program.text


def test_one_that_does_not_read_hurts_nobody(tmp_path):
    address = str(tmp_path / "full")
    with Systemd(address), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                filler.sendto(b"x", address)
        Notifier(address).send("READY=1")


def test_nothing_is_sent_where_there_is_nobody_or_nothing_to_say(tmp_path):
    with Systemd(str(tmp_path / "notify")) as systemd:
        Notifier("").send("READY=1")
        Notifier(systemd.address).send("")
        Notifier(systemd.address).send("READY=1")
        assert systemd.take() == ["READY=1"]
