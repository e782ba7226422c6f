"""Case 14: a drain's end does not wait for clients that do not read, stopped ones, or gone ones."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from harness import PATIENCE, Program

CONFIG = """
[drain]
grace_seconds = 1
cleanup_seconds = 1
exec_seconds = 1
close_seconds = 1.5
stop_budget_seconds = 15
[agent]
words_per_second = 1000000
[quick_commands.hello]
type = "exec"
command = "echo world"
"""
BUDGET = 15
READERS = 48

CLIENT = """
import sys
from websockets.sync.client import connect
websocket = connect(sys.argv[1])
print("connected", flush=True)
for frame in websocket:
    pass
"""


def upgrade(port: int, path: str) -> socket.socket:
    """Return a raw socket that was upgraded to a WebSocket, and that nobody reads any more."""
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lines = [
        f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "", "",
    ]  # fmt: skip
    sock.sendall("\r\n".join(lines).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101")
    return sock


@pytest.mark.parametrize("busy", ["with much to send", "with nothing to send"])
@pytest.mark.parametrize("reason", ["SIGTERM", "SIGUSR1"])
def test_case_14_fifty_clients_one_deaf_one_stopped(reason, busy, tmp_path):
    with Program(tmp_path, CONFIG) as program, contextlib.ExitStack() as stack:
        deaf = stack.enter_context(upgrade(program.port, "/chat?session=big"))
        url = f"ws://127.0.0.1:{program.port}/chat?session=big"
        stopped = subprocess.Popen([sys.executable, "-c", CLIENT, url], stdout=subprocess.PIPE, text=True)
        stack.callback(stopped.wait, PATIENCE)
        stack.callback(stopped.kill)
        stack.enter_context(stopped.stdout)
        assert stopped.stdout.readline() == "connected\n"
        os.kill(stopped.pid, signal.SIGSTOP)
        readers = [stack.enter_context(program.chat() if n % 2 else program.acp()) for n in range(READERS - 1)]
        readers.append(big := stack.enter_context(program.chat("big", max_size=None)))
        if busy == "with much to send":
            for _ in range(8):
                big.send("x" * 900_000)
                said = ""
                while len(said) < 900_000:
                    said += big.take()
        status = json.loads(program.get("/livez")[1])
        assert status["connections"] == READERS + 2
        program.signal(getattr(signal, reason))
        assert {reader.code for reader in readers} == {1012}
        assert program.wait() == (75 if reason == "SIGUSR1" else 0)
        report = program.report
        assert report["total_seconds"] < BUDGET
        assert report["connections_closed"] == READERS
        assert report["connections_forced"] == 2
        assert not report["cut"]
        deaf.close()


def test_case_14_an_exec_answers_although_others_do_not_read(tmp_path):
    with Program(tmp_path, CONFIG) as program, contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(upgrade(program.port, "/chat?session=big"))
        chat = stack.enter_context(program.chat("big", max_size=None))
        for _ in range(8):
            chat.send("x" * 900_000)
            said = ""
            while len(said) < 900_000:
                said += chat.take()
        chat.ask("/drain")
        for _ in range(5):
            assert chat.ask("/hello") == "world\n"
        program.signal()
        assert chat.code == 1012
        assert program.wait() == 0
        assert program.report["connections_forced"] == 5
