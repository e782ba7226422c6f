"""What clients see of a restart: from 1012 to connected and initialized again, and in their sessions again.

Each client has a session with a finished turn in it. SIGUSR1; each is told 1012, and comes back at once, again and
again every 10 ms while that fails. It resumes its session, which is kept on disk, by `after` and `epoch`; one that
is gone is counted as lost, and each event that the client did not get as missed. With `restart = "exec"`
nobody may be refused. In turn with it: `restart = "exit"` under a loop that starts the program again after an exit
with 75.

    python bench/restart_gap.py [--clients 100] [--rounds 5] [--json]

Target: with exec, refused connections 0; missed events 0.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Self

import trio
import trio_websocket

from acp_client import Client
from figures import finish, line, spread

CONFIG = """
[server]
port = {port}
restart = "{how}"
max_connections = {limit}
[agent]
words_per_second = 1000
[store]
path = "{folder}/gateway.db"
"""
OURS = {"protocolVersion": 1, "clientCapabilities": {"_meta": {"gateway-trio": {}}}}
RETRY_SECONDS = 0.01
PATIENCE = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


class Supervised:
    """`gateway-trio serve`, started again each time that it exits with 75."""

    def __init__(self, how: str, clients: int) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.port = free_port()
        config = Path(self._folder.name) / "gateway.toml"
        config.write_text(CONFIG.format(port=self.port, how=how, limit=clients + 50, folder=self._folder.name))
        config.chmod(0o600)
        self._command = [sys.executable, "-m", "gateway_trio", "serve", "--config", config]
        self._over = False
        self.starts = 0
        self.process = self._start()
        self._thread = threading.Thread(target=self._supervise, daemon=True)

    def _start(self) -> subprocess.Popen:
        self.starts += 1
        return subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _supervise(self) -> None:
        while self.process.wait() == 75 and not self._over:
            self.process = self._start()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self.process.kill()
        self._thread.join(PATIENCE)
        self._folder.cleanup()


class Visitor:
    """One client: connected, in a session, and back in it after a restart."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.refused = self.turned_away = self.lost = self.missed = 0
        self.gap = self.resumed = 0.0
        self._session = self._epoch = ""
        self._last = 0

    async def come(self, nursery: trio.Nursery) -> Client:
        """Connect and initialize, however often it takes."""
        with trio.fail_after(PATIENCE):
            while True:
                try:
                    return await self._try(nursery)
                except ConnectionRefusedError:
                    self.refused += 1
                except (trio_websocket.HandshakeError, trio_websocket.ConnectionClosed, OSError):
                    self.turned_away += 1
                await trio.sleep(RETRY_SECONDS)

    async def _try(self, nursery: trio.Nursery) -> Client:
        sock = trio.socket.socket()
        try:
            await sock.connect(("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        stream = trio.SocketStream(sock)
        websocket = await trio_websocket.wrap_client_stream(nursery, stream, "127.0.0.1", "/acp")
        client = Client(websocket)
        await client.call("initialize", OURS)
        return client

    async def talk(self, client: Client) -> None:
        """Have a session with a turn in it, and remember how far it came."""
        made = await client.call("session/new", {"cwd": "/", "mcpServers": []})
        self._session, self._epoch = made["sessionId"], made["_meta"]["gateway-trio"]["epoch"]
        asked = await client.prompt(self._session, "one two three")
        while True:
            frame = json.loads(await client.websocket.get_message())
            self._last = max(self._last, number(frame))
            if frame.get("id") == asked and "method" not in frame:
                return

    async def see_the_restart(self, client: Client, nursery: trio.Nursery) -> None:
        with contextlib.suppress(trio_websocket.ConnectionClosed), trio.fail_after(PATIENCE):
            while True:
                self._last = max(self._last, number(json.loads(await client.websocket.get_message())))
        if client.websocket.closed.code != 1012:
            raise SystemExit(f"closed with {client.websocket.closed}, not 1012")
        told = time.monotonic()
        again = await self.come(nursery)
        self.gap = time.monotonic() - told
        with trio.fail_after(PATIENCE):
            await self._resume(again)
        self.resumed = time.monotonic() - told

    async def _resume(self, client: Client) -> None:
        ours = {"after": self._last, "epoch": self._epoch}
        params = {"sessionId": self._session, "cwd": "/", "mcpServers": [], "_meta": {"gateway-trio": ours}}
        asked = await client.send("session/resume", params)
        seen = {self._last}
        result = None
        while result is None or (result["recovered"] and result["last"] > max(seen)):
            frame = json.loads(await client.websocket.get_message())
            seen.add(number(frame))
            if frame.get("id") == asked and "method" not in frame:
                if "error" in frame:
                    self.lost += 1
                    self.missed += self._last
                    return
                result = frame["result"]["_meta"]["gateway-trio"]
        expected = set(range(self._last + 1, result["last"] + 1)) if result["recovered"] else {0}
        self.missed += len(expected - seen)


def number(frame: dict) -> int:
    """Return the number of the event that a frame carries, 0 if it carries none."""
    update = (frame.get("params") or {}).get("update") or {}
    return ((update.get("_meta") or {}).get("gateway-trio") or {}).get("seq") or 0


async def one_round(how: str, count: int) -> list[Visitor]:
    with Supervised(how, count) as program:
        visitors = [Visitor(program.port) for _ in range(count)]
        async with trio.open_nursery() as nursery:
            clients = [await visitor.come(nursery) for visitor in visitors]
            for visitor, client in zip(visitors, clients, strict=True):
                await visitor.talk(client)
            for visitor in visitors:
                visitor.refused = visitor.turned_away = 0  # of the start
            pid = program.process.pid
            async with trio.open_nursery() as going:
                for visitor, client in zip(visitors, clients, strict=True):
                    going.start_soon(visitor.see_the_restart, client, nursery)
                os.kill(pid, signal.SIGUSR1)
            if (program.process.pid == pid) is not (how == "exec"):
                raise SystemExit(f"{how}: the process is {program.process.pid}, and was {pid}")
            nursery.cancel_scope.cancel()
    return visitors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    seen: dict[str, list[Visitor]] = {"exec": [], "exit": []}
    for _ in range(options.rounds):
        for how in seen:
            seen[how] += trio.run(one_round, how, options.clients)
    results: dict[str, object] = {}
    for how, visitors in seen.items():
        times = {
            "1012 to initialized": [v.gap for v in visitors],
            "1012 to resumed": [v.resumed for v in visitors],
        }
        counts = {
            name: sum(getattr(v, name) for v in visitors) for name in ("refused", "turned_away", "lost", "missed")
        }
        results[how] = {**{name: spread(values) for name, values in times.items()}, **counts}
        if not options.json:
            for name, values in times.items():
                print(line(f"{how}: {name}", values))
            told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in counts.items())
            print(f"    {told}, of {len(visitors)} clients")
    finish(options.json, results)


if __name__ == "__main__":
    main()
