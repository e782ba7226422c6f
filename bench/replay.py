"""A session of 100,000 events, loaded by one client and by 50 at once, while somebody else's turns go on.

The gateway is the real program with its store in a file, and most of the session is not in its memory. Printed:

* events a second, of one client that loads the session, and of all 50 together, and the gateway's CPU time for
  each;
* the first token of a live turn of another session, at its client: with nothing else going on, while one loads,
  and while 50 do. How much later it is than with nothing else is the cost; the limit is 5 ms.

The clients that load are one process of their own, which only gets what the others leave of the processors.

    python bench/replay.py [--events 100000] [--clients 50] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import trio

from figures import finish, line, spread
from gateway import Program
from swarm import Client, Swarm

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import long_session

CONFIG = """
[server]
port = 0
[agent]
words_per_second = 1e6
[store]
path = "{path}"
"""
OURS = {"protocolVersion": 1, "clientCapabilities": {"_meta": {"gateway-trio": {}}}}
TEXT = "An answer of about a hundred characters, so that it is neither long nor short, as most answers are. "


class Loaders(Swarm):
    """Clients that load the session; `updates` counts what they are sent."""

    updates = 0

    def _take(self, client: Client, opcode: int, payload: bytes, now: float) -> None:
        self.updates += b'"session/update"' in payload
        super()._take(client, opcode, payload, now)


def load(port: int, clients: int) -> None:
    """Load with so many clients at once; print what they were sent and how long it took."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # the asker's own wait for a processor is not ours
    swarm = Loaders()
    for _ in range(clients):
        swarm.add(client := Client(port, "/acp"))
        client.call(1, "initialize", OURS)
    began = time.monotonic()
    for client in swarm.clients:
        client.call(3, "session/load", {"sessionId": long_session.ID, "cwd": "/", "mcpServers": []})
    swarm.pump(lambda: all(client.ended_at for client in swarm.clients), 900)
    print(json.dumps({"seconds": time.monotonic() - began, "updates": swarm.updates}))


class Asker:
    """Prompts and waits for the first token, again and again."""

    def __init__(self, port: int) -> None:
        self.client = Client(port, "/acp")
        self._ids = 10
        self.call("initialize", OURS)
        self.session = self.call("session/new", {"cwd": "/", "mcpServers": []})["sessionId"]

    def call(self, method: str, params: dict) -> dict:
        self._ids += 1
        self.client.call(self._ids, method, params)
        while self._ids not in self.client.results:
            self.read()
        return self.client.results[self._ids]["result"]

    def read(self) -> list[bytes]:
        data = self.client.socket.recv(262144)
        assert data, "closed"
        self.client.buffer += data
        payloads = [payload for _, payload in self.client.frames()]
        for payload in payloads:
            if payload.startswith(b'{"jsonrpc":"2.0","id":'):
                message = json.loads(payload)
                self.client.results[message["id"]] = message
        return payloads

    def first_token(self) -> float:
        """Return the seconds from a prompt to its first token."""
        self._ids += 1
        began = time.monotonic()
        params = {"sessionId": self.session, "prompt": [{"type": "text", "text": "word"}]}
        self.client.call(self._ids, "session/prompt", params)
        first = None
        while self._ids not in self.client.results:
            payloads = self.read()
            if first is None and any(b"agent_message_chunk" in payload for payload in payloads):
                first = time.monotonic() - began
        return first

    def while_running(self, process: subprocess.Popen) -> list[float]:
        found = []
        while process.poll() is None:
            found.append(self.first_token())
            time.sleep(0.02)
        return found


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process so far (proc_pid_stat(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--load", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.load:
        load(asked.port, asked.load)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.db"
        trio.run(partial(long_session.fill, path, asked.events, text=TEXT))
        results: dict[str, object] = {}
        with Program(CONFIG.format(path=path)) as program:
            asker = Asker(program.port)
            for _ in range(50):
                asker.first_token()
            idle = [asker.first_token() for _ in range(300)]
            print(line("first token, nothing else", idle))
            results["idle"] = spread(idle)
            for clients in (1, asked.clients):
                command = [sys.executable, __file__, "--load", str(clients), "--port", str(program.port)]
                before = cpu_seconds(program.pid)
                with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                    tokens = asker.while_running(process)
                    told = json.loads(process.stdout.read())
                rate = told["updates"] / told["seconds"]
                told["cpu_us"] = (cpu_seconds(program.pid) - before) / told["updates"] * 1e6
                seconds = told["seconds"]
                print(
                    f"{clients:>3} load: {told['updates']} updates in {seconds:.1f} s, {rate:,.0f} a second,",
                    end="",
                )
                print(f" {told['cpu_us']:.0f} µs CPU each")
                print(line(f"first token, while {clients} load", tokens))
                later = (spread(tokens)["median"] - spread(idle)["median"]) * 1000
                print(f"    later by {later:.2f} ms (median), at most {(max(tokens)) * 1000:.1f} ms in all")
                results[f"{clients}"] = {**told, "rate": rate, "tokens": spread(tokens), "later_ms": later}
    if asked.json:
        finish(as_json=True, results=results)


if __name__ == "__main__":
    main()
