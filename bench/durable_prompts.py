"""How many prompts a second are accepted and answered with the store on disk, against the one in memory.

Two gateways, a process each, with an echo that does not wait: one with `MemoryStore`, one with `SqliteStore` in a
new directory. Clients over `/acp` prompt, wait for the answer and prompt again, each in a session of its own. The
two gateways alternate, round by round, with 1 and with 64 clients. Then the stores alone: what accepts a prompt
and ends it, committed by 1 and by 64 tasks.

    python bench/durable_prompts.py [--rounds 10] [--directory DIR] [--json]

Target: with 64 clients at least 0.6 times what it is in memory. A directory in memory (tmpfs) proves nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import trio
import trio_websocket

from acp_client import Client
from figures import finish, line, spread
from gateway_trio import Config, MemoryStore, SqliteStore, Store, serve
from gateway_trio.config import EchoAgentConfig, ServerConfig
from gateway_trio.core.events import Prompt
from gateway_trio.core.session import TurnState
from gateway_trio.store import AddEvent, AddSession, AddTurn, MoveTurn

TARGET = 0.6
STORES = ("memory", "sqlite")
PROMPTS = {1: 100, 64: 640}  # of a round, all clients together
COMMITS = {1: 500, 64: 6400}


def make_store(kind: str, directory: Path) -> Store:
    return MemoryStore() if kind == "memory" else SqliteStore(directory / "gateway.db")


# --- through the gateway ---


async def gateway(kind: str, directory: Path, told: multiprocessing.Queue, stop: multiprocessing.Event) -> None:
    config = Config(server=ServerConfig(port=0), agent=EchoAgentConfig(words_per_second=1e6))
    async with trio.open_nursery() as nursery:
        running = await nursery.start(partial(serve, config, store=make_store(kind, directory)))
        told.put(running.addresses[0][1])
        await trio.to_thread.run_sync(stop.wait, abandon_on_cancel=True)
        running.drain("shutdown", by="the end", grace_seconds=0)


def run_gateway(kind: str, directory: Path, told: multiprocessing.Queue, stop: multiprocessing.Event) -> None:
    trio.run(gateway, kind, directory, told, stop)


class Asker(Client):
    session = ""

    async def ask(self, prompts: int) -> None:
        for _ in range(prompts):
            answer = await self.answer(await self.prompt(self.session, "word"))
            assert answer["stopReason"] == "end_turn"


async def connect(nursery: trio.Nursery, port: int) -> Asker:
    client = Asker(await trio_websocket.connect_websocket_url(nursery, f"ws://127.0.0.1:{port}/acp"))
    await client.call("initialize", {"protocolVersion": 1})
    client.session = await client.new_session()
    return client


async def rate(tasks: list, number: int) -> float:
    """Return how many a second the tasks do, which do `number` together."""
    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(task, number // len(tasks))
    return number / (time.perf_counter() - start)


async def through_gateways(ports: dict[str, int], rounds: int) -> dict[str, dict[str, list[float]]]:
    results: dict[str, dict[str, list[float]]] = {}
    async with trio.open_nursery() as nursery:
        clients = {kind: [await connect(nursery, port) for _ in range(64)] for kind, port in ports.items()}
        for at_once, number in PROMPTS.items():
            rates: dict[str, list[float]] = {kind: [] for kind in STORES}
            for round_ in range(rounds + 1):
                for kind in STORES:
                    found = await rate([client.ask for client in clients[kind][:at_once]], number)
                    if round_:  # the first one warms up
                        rates[kind].append(found)
            results[f"prompts, {at_once} client{'s' * (at_once > 1)}"] = rates
        for client in (client for kind in STORES for client in clients[kind]):
            await client.websocket.aclose()
    return results


# --- the stores alone ---


async def commits(store: Store, session: str, number: int, start: int) -> None:
    for n in range(start + 1, start + number + 1):
        turn = f"{session}-{n}"
        await store.commit(
            [
                AddEvent(session, n, turn, Prompt("word", "turn")),
                AddTurn(turn, session, None, "digest", n, "ann"),
                MoveTurn(turn, frozenset({TurnState.QUEUED}), TurnState.CANCELLED),
            ]
        )


async def stores_alone(directory: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    results: dict[str, dict[str, list[float]]] = {}
    stores = {kind: make_store(kind, directory) for kind in STORES}
    for store in stores.values():
        await store.open()
        await store.commit([AddSession(f"s{i}-{at_once}", "ann") for at_once in COMMITS for i in range(at_once)])
    for at_once, number in COMMITS.items():
        rates: dict[str, list[float]] = {kind: [] for kind in STORES}
        each = number // at_once
        for round_ in range(rounds + 1):
            for kind, store in stores.items():
                tasks = [partial(commits, store, f"s{i}-{at_once}", start=round_ * each) for i in range(at_once)]
                found = await rate(tasks, number)
                if round_:
                    rates[kind].append(found)
        results[f"commits, {at_once} task{'s' * (at_once > 1)}"] = rates
    for store in stores.values():
        await store.aclose()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--directory", type=Path, help="on the disk to be measured; else that of temporary files")
    parser.add_argument("--alone", action="store_true", help="the stores alone, without gateways")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.directory)))
        results = {}
        if not options.alone:
            ports = {}
            for kind in STORES:
                told, stop = context.Queue(), context.Event()
                process = context.Process(
                    target=run_gateway, args=(kind, place / "served", told, stop), daemon=True
                )
                process.start()
                stack.callback(process.join, 30)
                stack.callback(stop.set)
                ports[kind] = told.get(timeout=30)
            results |= trio.run(through_gateways, ports, options.rounds)
        results |= trio.run(stores_alone, place / "alone", options.rounds)
    out: dict[str, object] = {}
    for name, rates in results.items():
        ratio = statistics.median(
            disk / memory for disk, memory in zip(rates["sqlite"], rates["memory"], strict=True)
        )
        out[name] = {kind: spread(rates[kind]) for kind in STORES} | {"ratio": ratio}
        if not options.json:
            for kind in STORES:
                print(line(f"{name}: {kind}", rates[kind], "/s", 1))
            verdict = f": {'within' if ratio >= TARGET else 'under'} {TARGET}x" if "64 clients" in name else ""
            print(f"    {ratio:.2f}x{verdict}\n")
    finish(options.json, out)


if __name__ == "__main__":
    main()
