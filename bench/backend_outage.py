"""What 500 clients that prompt every second are told while the backend is down for 20 s, and after it.

The gateway is the real program, its agent one whose backend is down while a file exists. Printed:

* from the moment at which the backend goes down to the first refusal that did not ask it (-32010), and how many
  prompts failed at the backend before and after it;
* a refusal as its client sees it, and the gateway's CPU time for each, in the first half of the outage; beside it
  the CPU time of a turn that is completed before the outage;
* an exec of `true` during the second half, in turn with a bare `trio.run_process` of the same command line;
* from the moment at which the backend is up again to the first turn that is completed. Most of this is the wait
  for the next probe, so the part of it after the gateway opened is told as well.

    python bench/backend_outage.py [--clients 500] [--seconds 20] [--probe 4] [--rounds 3] [--json]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import trio

from figures import finish, line, spread
from gateway import Program
from swarm import Client, Swarm

CONFIG = """
[server]
port = 0
max_connections = {limit}
[breaker]
probe_seconds = {probe}
[quick_commands.true]
type = "exec"
command = "true"
role = "user"
"""
ARGV = ["/bin/sh", "-c", "true", "gateway-trio:true"]
OURS = {"protocolVersion": 1, "clientCapabilities": {"_meta": {"gateway-trio": {}}}}
AGENT = Path(__file__).with_name("outage_agent.py")
REFUSED, FAILED = -32010, -32016


class Crowd(Swarm):
    """Clients of which each prompts once a second, evenly spread, while `pump` runs."""

    def __init__(self) -> None:
        super().__init__()
        self.due: deque[tuple[float, Client]] = deque()
        self.sent: dict[tuple[int, int], float] = {}
        self.answers: list[tuple[float, int | None]] = []  #: after how long, error code
        self.first: dict[int | None, float] = {}  #: by error code, when the first such answer came
        self.opened_at = 0.0
        self._ids = 1000

    def begin(self, clients: list[Client], sessions: dict[int, str]) -> None:
        now = time.monotonic()
        self._sessions = sessions
        self.due.extend((now + n / len(clients), client) for n, client in enumerate(clients))

    def forget(self) -> None:
        self.answers.clear()
        self.first.clear()

    def prompt_until(self, holds: Callable[[], bool], until: float) -> bool:
        """Prompt and read until it holds; False at the time `until`."""
        while not holds():
            now = time.monotonic()
            if now >= until:
                return False
            while self.due[0][0] <= now:
                at, client = self.due.popleft()
                self.due.append((at + 1.0, client))
                self._prompt(client)
            self.pump(holds, min(self.due[0][0], until) - time.monotonic())
        return True

    def _prompt(self, client: Client) -> None:
        self._ids += 1
        self.sent[id(client), self._ids] = time.monotonic()
        words = [{"type": "text", "text": "hello"}]
        client.call(self._ids, "session/prompt", {"sessionId": self._sessions[id(client)], "prompt": words})

    def _take(self, client: Client, opcode: int, payload: bytes, now: float) -> None:
        super()._take(client, opcode, payload, now)
        if b'"_gateway-trio/phase"' in payload and b'"phase":"open"' in payload:
            self.opened_at = self.opened_at or now
        for id_ in [id_ for id_ in client.results if (id(client), id_) in self.sent]:
            code = (client.results.pop(id_).get("error") or {}).get("code")
            self.answers.append((now - self.sent.pop((id(client), id_)), code))
            self.first.setdefault(code, now)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def floor() -> float:
    start = time.perf_counter()
    await trio.run_process(ARGV, stdin=subprocess.DEVNULL, capture_stdout=True, start_new_session=True)
    return time.perf_counter() - start


def connect(crowd: Crowd, port: int, count: int) -> tuple[list[Client], Client]:
    """Return so many clients with a session each, and one more that runs execs."""
    for _ in range(count + 1):
        client = Client(port, "/acp")
        client.call(1, "initialize", OURS)
        crowd.add(client)
    assert crowd.pump(lambda: all(1 in c.results for c in crowd.clients), 30)
    for client in crowd.clients:
        client.call(2, "session/new", {"cwd": "/", "mcpServers": []})
    assert crowd.pump(lambda: all(2 in c.results for c in crowd.clients), 30)
    *clients, prober = crowd.clients
    crowd.begin(clients, {id(c): c.results[2]["result"]["sessionId"] for c in clients})
    return clients, prober


def run_execs(crowd: Crowd, prober: Client, until: float) -> tuple[list[float], list[float]]:
    """Alternate a bare process and an exec through the gateway, while the crowd goes on."""
    floors, execs, number = [], [], 10
    while time.monotonic() < until:
        floors.append(trio.run(floor))
        crowd.prompt_until(lambda: False, time.monotonic() + 0.02)  # what the floor held up
        number += 1
        start = time.perf_counter()
        prober.call(number, "_gateway-trio/exec", {"name": "true"})
        assert crowd.prompt_until(lambda n=number: n in prober.results, time.monotonic() + 30)
        execs.append(time.perf_counter() - start)
        assert prober.results.pop(number)["result"]["exitCode"] == 0
    return floors, execs


def one_round(clients: int, seconds: float, probe: float, down: Path) -> dict[str, list[float]]:
    config = CONFIG.format(limit=clients + 50, probe=probe)
    with Program(config, script=AGENT, env={"BENCH_DOWN": str(down)}) as program:
        crowd = Crowd()
        _, prober = connect(crowd, program.port, clients)
        cpu = cpu_seconds(program.pid)
        crowd.prompt_until(lambda: False, time.monotonic() + 2.0)  # all is well
        turn = (cpu_seconds(program.pid) - cpu) / len(crowd.answers)
        assert set(crowd.first) == {None}, "a turn failed before the outage"
        crowd.forget()

        down.touch()
        went_down = time.monotonic()
        assert crowd.prompt_until(lambda: REFUSED in crowd.first, went_down + 10)
        before = len(crowd.answers)
        cpu = cpu_seconds(program.pid)
        crowd.prompt_until(lambda: False, went_down + seconds / 2)
        cpu = cpu_seconds(program.pid) - cpu
        refusals = [took for took, code in crowd.answers[before:] if code == REFUSED]
        floors, execs = run_execs(crowd, prober, went_down + seconds)
        failed = sum(code == FAILED for _, code in crowd.answers)
        first = crowd.first[REFUSED]

        crowd.forget()
        crowd.opened_at = 0.0
        down.unlink()
        came_up = time.monotonic()
        assert crowd.prompt_until(lambda: None in crowd.first, came_up + 90), "it did not recover"
        recovered = crowd.first[None]
        assert crowd.open == clients + 1, "a client was lost"
        for client in crowd.clients:
            client.socket.close()
    return {
        "first refusal after the backend goes down": [first - went_down],
        "prompts that failed at the backend": [failed],
        "a completed turn, CPU of the gateway": [turn],
        "a refusal, at its client": refusals,
        "a refusal, CPU of the gateway": [cpu / len(refusals)],
        "exec: bare run_process": floors,
        "exec through the gateway": execs,
        "recovery: to the first turn": [recovered - came_up],
        "recovery: from open again to the first turn": [recovered - crowd.opened_at],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=20, help="for which the backend is down")
    parser.add_argument("--probe", type=float, default=4, help="the first wait for a probe, in seconds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            found = one_round(options.clients, options.seconds, options.probe, Path(folder) / "down")
            for name, values in found.items():
                figures.setdefault(name, []).extend(values)
    if not options.json:
        print(
            f"{options.clients} clients, a prompt a second each, {options.seconds:g} s down, probes from"
            f" {options.probe:g} s on; {Path(sys.executable).name}"
        )
        for name, values in figures.items():
            unit = {"unit": "", "scale": 1} if name.startswith("prompts") else {}
            print(line(name, values, **unit))
        base, median = (
            spread(figures[name])["median"] for name in ("exec: bare run_process", "exec through the gateway")
        )
        print(f"    exec {median / base:.2f}x, {(median - base) * 1000:+.2f} ms")
    finish(options.json, {name: spread(values) for name, values in figures.items()})


if __name__ == "__main__":
    main()
