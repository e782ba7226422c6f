"""How long a quick command takes through the gateway, against the process alone.

An exec of `true` through `/acp`, from the prompt to its answer: with the gateway open, in mid-turn, and draining.
The floor is a bare `trio.run_process` of the same command line, in this process. The two alternate, pair by pair.

    python bench/exec_latency.py [--pairs 150] [--json]

Target: at most 1.3 times the floor + 2 ms, in each of the three.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import time

import trio
import trio_websocket

from acp_client import Client
from figures import finish, line, spread
from gateway import Program

CONFIG = """
[server]
port = 0
[agent]
words_per_second = 5
[drain]
grace_seconds = 600
stop_budget_seconds = 700
[store]
type = "{store}"
[quick_commands.true]
type = "exec"
command = "true"
role = "user"
"""
ARGV = ["/bin/sh", "-c", "true", "gateway-trio:true"]


async def floor() -> float:
    start = time.perf_counter()
    await trio.run_process(ARGV, stdin=subprocess.DEVNULL, capture_stdout=True, start_new_session=True)
    return time.perf_counter() - start


async def through(client: Client, session: str) -> float:
    start = time.perf_counter()
    result = await client.answer(await client.prompt(session, "/true"))
    assert result["_meta"]["gateway-trio"]["exitCode"] == 0
    return time.perf_counter() - start


async def pairs(client: Client, session: str, count: int) -> tuple[list[float], list[float]]:
    floors, execs = [], []
    for number in range(count + 10):
        first, second = await floor(), await through(client, session)
        if number >= 10:  # the first ones warm caches
            floors.append(first)
            execs.append(second)
    return floors, execs


async def measure(program: Program, count: int) -> dict[str, tuple[list[float], list[float]]]:
    results = {}
    async with trio_websocket.open_websocket_url(f"ws://127.0.0.1:{program.port}/acp") as websocket:
        client = Client(websocket)
        await client.call("initialize", {"protocolVersion": 1})
        session = await client.new_session()
        results["open"] = await pairs(client, session, count)
        await client.prompt(session, "word " * 100_000)
        results["in mid-turn"] = await pairs(client, session, count)
        os.kill(program.pid, signal.SIGTERM)
        results["draining"] = await pairs(client, session, count)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=150, help="of each kind")
    parser.add_argument(
        "--store", choices=["sqlite", "memory"], default="memory", help="sqlite: with three synced commits each"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with Program(CONFIG.format(store=options.store)) as program:
        results = trio.run(measure, program, options.pairs)
    out: dict[str, object] = {}
    for state, (floors, execs) in results.items():
        base, median = spread(floors)["median"], spread(execs)["median"]
        out[state] = {"floor": spread(floors), "exec": spread(execs), "target": 1.3 * base + 0.002}
        if not options.json:
            print(line(f"{state}: bare run_process", floors))
            print(line(f"{state}: exec through /acp", execs))
            verdict = "within" if median <= 1.3 * base + 0.002 else "over"
            print(f"    {median / base:.2f}x, {(median - base) * 1000:+.2f} ms: {verdict} 1.3x + 2 ms\n")
    finish(options.json, out)


if __name__ == "__main__":
    main()
