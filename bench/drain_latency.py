"""What a drain costs beyond what it waits for: 1,000 clients, 200 running turns, 4 execs, one SIGTERM.

The turns outlast the grace and are cancelled; the execs outlast the turns and are waited for. While it drains,
one client runs `true` again and again. Printed: `overhead_seconds` of the report (the total less the time in which
turns, execs or slow sockets were waited for), first to last notice as the clients saw it, the exec's latency,
and the time from the last turn's answer to the exit of the process, less the wait for the execs.

The floor, in turn with it: a bare Trio program that holds as many sockets and on SIGTERM sends each two frames in
one loop, waits until each has closed, and exits.

    python bench/drain_latency.py [--clients 1000] [--turns 200] [--rounds 3] [--json]

Target: overhead under 0.5 s at 1,000 clients.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from figures import finish, line, spread
from gateway import Program
from swarm import Client, Swarm

CONFIG = """
[server]
port = 0
max_connections = {limit}
[agent]
words_per_second = 1
[drain]
grace_seconds = 2
exec_seconds = 6
close_seconds = 3
[quick_commands.long]
type = "exec"
command = "sleep 4"
[quick_commands.true]
type = "exec"
command = "true"
"""
OURS = {"protocolVersion": 1, "clientCapabilities": {"_meta": {"gateway-trio": {}}}}


def gateway_round(clients: int, turns: int) -> dict[str, float]:
    with Program(CONFIG.format(limit=clients + 50)) as program:
        swarm, prober = Swarm(), None
        for _ in range(clients):
            client = Client(program.port, "/acp")
            client.call(1, "initialize", OURS)
            swarm.add(client)
        prober = swarm.clients[-1]
        busy = swarm.clients[:turns]
        execs = swarm.clients[turns : turns + 4]
        assert swarm.pump(lambda: all(1 in c.results for c in swarm.clients), 30)
        for client in busy:
            client.call(2, "session/new", {"cwd": "/", "mcpServers": []})
        assert swarm.pump(lambda: all(2 in c.results for c in busy), 30)
        for client in busy:
            session = client.results[2]["result"]["sessionId"]
            client.call(
                3, "session/prompt", {"sessionId": session, "prompt": [{"type": "text", "text": "w " * 200}]}
            )
        for client in execs:
            client.call(4, "_gateway-trio/exec", {"name": "long"})
        swarm.pump(lambda: False, 1.0)  # all of it runs

        told = time.monotonic()
        os.kill(program.pid, signal.SIGTERM)
        latencies, asked, number = [], 0.0, 100
        while swarm.open:
            if prober.closed_at is None and (number == 100 or number in prober.results):
                if number in prober.results:
                    latencies.append(time.monotonic() - asked)
                number += 1
                asked = time.monotonic()
                with contextlib.suppress(OSError):
                    prober.call(number, "_gateway-trio/exec", {"name": "true"})
            swarm.pump(lambda n=number: n in prober.results or not swarm.open, 30)
        gone = program.wait()
        report = program.report
    notices = [c.noticed_at - told for c in swarm.clients if c.noticed_at is not None]
    assert len(notices) == clients, f"{len(notices)} of {clients} were told"
    assert all(c.code == 1012 for c in swarm.clients), "not every client got 1012"
    assert program.process.returncode == 0
    assert report["turns_interrupted"] == turns, report
    last_turn = max(c.ended_at for c in busy)
    return {
        "overhead": report["overhead_seconds"],
        "first notice": min(notices),
        "first to last notice": max(notices) - min(notices),
        "exec during the drain": spread(latencies)["median"],
        "exec during the drain, worst of 20": spread(latencies)["p95"],
        "last turn to exit, less execs": gone - last_turn - report["phases"]["finishing"],
        "total": report["total_seconds"],
    }


FLOOR = """
import signal, sys, trio
async def main(clients):
    streams, gone = [], trio.Event()
    left = clients
    async def hold(stream):
        nonlocal left
        streams.append(stream)
        while await stream.receive_some(4096): pass
        left -= 1
        if not left: gone.set()
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, hold, 0)
            print(listeners[0].socket.getsockname()[1], flush=True)
            async for _ in signals:
                for payload in (b"x" * 200, b"y" * 40):
                    for stream in streams: await stream.send_all(payload)
                for stream in streams: await stream.send_eof()
                await gone.wait()
                break
            nursery.cancel_scope.cancel()
trio.run(main, int(sys.argv[1]))
"""


def floor_round(clients: int) -> float:
    program = subprocess.Popen([sys.executable, "-c", FLOOR, str(clients)], stdout=subprocess.PIPE, text=True)
    try:
        port = int(program.stdout.readline())
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(clients)]
        selector = selectors.DefaultSelector()
        for each in sockets:
            selector.register(each, selectors.EVENT_READ)
        time.sleep(0.5)  # all are accepted
        start = time.monotonic()
        program.send_signal(signal.SIGTERM)
        left = clients
        while left:
            for key, _ in selector.select(30):
                if not key.fileobj.recv(4096):
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
                    left -= 1
        program.wait(30)
        return time.monotonic() - start
    finally:
        program.kill()
        program.wait()
        program.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        figures.setdefault("floor: tell and close as many sockets", []).append(floor_round(options.clients))
        for name, value in gateway_round(options.clients, options.turns).items():
            figures.setdefault(name, []).append(value)
    if not options.json:
        print(f"{options.clients} clients, {options.turns} running turns, 4 execs; {Path(sys.executable).name}")
        for name, values in figures.items():
            print(line(name, values))
        overhead = spread(figures["overhead"])["median"]
        print(f"    overhead {'under' if overhead < 0.5 else 'over'} 0.5 s")
    finish(options.json, {name: spread(values) for name, values in figures.items()})


if __name__ == "__main__":
    main()
