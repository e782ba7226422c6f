"""Kills a gateway with -9 again and again under clients that resend what they do not know the end of.

The gateway is the real program with its store in a file. Each client has a session of its own and prompts without
a pause: turns, several at once, and execs that append their word to a file. After a kill it connects again,
resumes behind what it has, and sends every prompt that was not answered again, with the same key. At the end, with
the gateway up, each waits for its answers, loads its session, and compares:

* acknowledged and lost: a prompt whose `queued` it saw, without exactly one `queued` and one outcome in the log;
* two outcomes: a key for which it saw, or the log has, more than one;
* execs run twice: a word that stands in the file more than once; or not at all though its exec completed;
* gaps: a number that the log has and that it was neither sent nor told to be lost; a number that the database does
  not have below its highest;
* texts: messages unlike the log's.

    python bench/crash_soak.py [--kills 60] [--clients 8] [--seed N] [--json]

Exits with 1 if there is any of these.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import trio
import trio_websocket
from attrs import define, field

import gateway_trio

CONFIG = """
[server]
port = {port}
[agent]
words_per_second = 150
[store]
path = "{folder}/gateway.db"
[quick_commands.note]
type = "exec"
command = "printf '%s\\\\n' \\"$1\\" >> {folder}/notes; sleep 0.0$(($$ % 10))"
args = "text"
role = "user"
"""
OURS = {"protocolVersion": 1, "clientCapabilities": {"_meta": {"gateway-trio": {}}}}
ENDS = frozenset({"completed", "cancelled", "interrupted", "failed"})
GONE = (OSError, trio_websocket.HandshakeError, trio_websocket.ConnectionClosed)

#: Prompts of a client that are under way at once.
AT_ONCE = 3


@define
class Log:
    """What a client was sent of its session: by number, and by key what became of it."""

    seen: set[int] = field(factory=set)
    texts: dict[int, str] = field(factory=dict)
    queued: dict[str, set[int]] = field(factory=lambda: collections.defaultdict(set))
    ended: dict[str, set[tuple[int, str]]] = field(factory=lambda: collections.defaultdict(set))
    broken: int = 0  #: pieces that did not fit behind what was there

    def take(self, update: dict) -> None:
        ours = (update.get("_meta") or {}).get("gateway-trio") or {}
        if "lost" in ours:
            self.seen |= set(range(ours["lost"]["from"], ours["lost"]["to"] + 1))
        if (seq := ours.get("seq")) is None:
            return
        self.seen.add(seq)
        if (change := ours.get("turn") or ours.get("exec")) is not None:
            self.seen.add(change["seq"])  # one's own prompt is not echoed live
            if change["state"] == "queued":
                self.queued[change["key"]].add(seq)
            elif change["state"] in ENDS:
                self.ended[change["key"]].add((seq, change["state"]))
        elif update["sessionUpdate"] == "agent_message_chunk":
            before = self.texts.get(seq, "")
            self.broken += ours["at"] > len(before)
            self.texts[seq] = before[: ours["at"]] + update["content"]["text"]


@define
class Client:
    """One session, and the prompts in it that have no answer yet."""

    name: str
    url: str
    dice: random.Random
    log: Log = field(factory=Log)
    session: str = ""
    epoch: str = ""
    unanswered: dict[str, str] = field(factory=dict)  #: key → text
    sent: dict[str, str] = field(factory=dict)
    answers: dict[str, list[str]] = field(factory=lambda: collections.defaultdict(list))
    resent: int = 0
    closing: bool = False
    done: trio.Event = field(factory=trio.Event)
    _ids: dict[int, str] = field(factory=dict)
    _next: int = 0

    async def run(self) -> None:
        """Come back until everything has an answer and nothing new is to be sent."""
        while not self.done.is_set():
            try:
                async with trio_websocket.open_websocket_url(self.url) as websocket:
                    await self.attach(websocket)
                    await self.talk(websocket)
            except* GONE:
                await trio.sleep(0.02)  # for as long as nobody listens

    async def attach(self, websocket: trio_websocket.WebSocketConnection) -> None:
        await self.call(websocket, "initialize", OURS)
        if not self.session:
            made = await self.call(websocket, "session/new", {"cwd": "/", "mcpServers": []})
            self.session = made["sessionId"]
        else:
            after = max(self.log.seen, default=0)
            ours = {"after": after, "epoch": self.epoch}
            params = {"sessionId": self.session, "cwd": "/", "_meta": {"gateway-trio": ours}}
            made = await self.call(websocket, "session/resume", params)
        found = made["_meta"]["gateway-trio"]
        assert found["recovered"], found
        self.epoch = found["epoch"]
        self._ids.clear()
        for key, text in self.unanswered.items():
            self.resent += 1
            await self.prompt(websocket, key, text)

    async def talk(self, websocket: trio_websocket.WebSocketConnection) -> None:
        while True:
            while not self.closing and len(self.unanswered) < AT_ONCE:
                await self.prompt_anew(websocket)
            if self.closing and not self.unanswered:
                self.done.set()
                return
            self.take(json.loads(await websocket.get_message()))

    async def prompt_anew(self, websocket: trio_websocket.WebSocketConnection) -> None:
        key = f"{self.name}-{len(self.sent)}"
        words = " ".join([key] * self.dice.randint(1, 60))
        self.sent[key] = self.unanswered[key] = f"/note {key}" if self.dice.random() < 0.4 else words
        await self.prompt(websocket, key, self.sent[key])

    async def prompt(self, websocket: trio_websocket.WebSocketConnection, key: str, text: str) -> None:
        params = {
            "sessionId": self.session,
            "prompt": [{"type": "text", "text": text}],
            "_meta": {"gateway-trio": {"key": key}},
        }
        self._ids[await self.send(websocket, "session/prompt", params)] = key

    async def send(self, websocket: trio_websocket.WebSocketConnection, method: str, params: dict) -> int:
        self._next += 1
        frame = {"jsonrpc": "2.0", "id": self._next, "method": method, "params": params}
        await websocket.send_message(json.dumps(frame))
        return self._next

    async def call(self, websocket: trio_websocket.WebSocketConnection, method: str, params: dict) -> dict:
        id_ = await self.send(websocket, method, params)
        while True:
            frame = json.loads(await websocket.get_message())
            if frame.get("id") == id_ and "method" not in frame:
                return frame["result"]
            self.take(frame)

    def take(self, frame: dict) -> None:
        if frame.get("method") == "session/update":
            self.log.take(frame["params"]["update"])
        elif (key := self._ids.pop(frame.get("id"), None)) is not None:
            error = frame.get("error")
            if error is not None and error["data"]["reason"] == "draining":
                return  # accepted or not: sent again after the restart
            self.unanswered.pop(key, None)
            self.answers[key].append("completed" if error is None else error["data"]["reason"])

    async def load(self) -> Log:
        """Return the whole session, as one who comes now is sent it."""
        whole = Log()
        async with trio_websocket.open_websocket_url(self.url) as websocket:
            other = Client(self.name, self.url, self.dice, log=whole)
            await other.call(websocket, "initialize", OURS)
            params = {"sessionId": self.session, "cwd": "/", "mcpServers": []}
            await other.call(websocket, "session/load", params)
        return whole


def faults(client: Client, whole: Log, notes: collections.Counter[str]) -> collections.Counter[str]:
    """Count what is wrong with one client's session."""
    found: collections.Counter[str] = collections.Counter()
    for key, text in client.sent.items():
        outcomes = client.log.ended[key] | whole.ended[key]
        known = key in client.log.queued or key in client.answers
        found["lost"] += known and not (len(whole.queued[key]) == 1 and len(whole.ended[key]) == 1)
        found["two_outcomes"] += len(outcomes) > 1 or len(set(client.answers[key])) > 1
        if text.startswith("/"):
            completed = "completed" in {state for _, state in outcomes}
            found["run_twice"] += notes[key] > 1
            found["not_run"] += completed and notes[key] != 1
    found["gaps"] += len(whole.seen - client.log.seen) + client.log.broken + whole.broken
    found["texts"] += sum(client.log.texts.get(number) != text for number, text in whole.texts.items())
    return found


def missing(database: Path) -> int:
    """Return how many numbers the sessions lack in the database."""
    with contextlib.closing(sqlite3.connect(database)) as db:
        rows = db.execute("SELECT max(number) - count(*) + min(number) - 1 FROM events GROUP BY session")
        return sum(number for (number,) in rows)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def start(config: Path, log: Path) -> trio.Process:
    """Start the program and wait until it says that it listens."""
    with log.open("ab") as out:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "gateway_trio", "serve", "--config", str(config)],
            stdout=-1, stderr=out, start_new_session=True,
        )  # fmt: skip
    if not await process.stdout.receive_some():  # it stays open, for more than one line
        raise SystemExit(await trio.Path(log).read_text())
    return process


async def soak(kills: int, clients: int, seed: int, folder: Path) -> dict:
    dice = random.Random(seed)
    port = free_port()
    config = folder / "gateway.toml"
    config.write_text(CONFIG.format(port=port, folder=folder))
    config.chmod(0o600)
    crowd = [Client(f"c{i}", f"ws://127.0.0.1:{port}/acp", random.Random(seed + i)) for i in range(clients)]
    began = time.monotonic()
    process = await start(config, folder / "log")
    try:
        async with trio.open_nursery() as nursery:
            for client in crowd:
                nursery.start_soon(client.run)
            for _ in range(kills):
                await trio.sleep(dice.uniform(0.05, 0.8))
                process.send_signal(signal.SIGKILL)
                await process.wait()
                process = await start(config, folder / "log")
            for client in crowd:
                client.closing = True
            for client in crowd:  # one that waits for nothing has to look again
                if not client.unanswered:
                    client.done.set()
            with trio.fail_after(120):
                for client in crowd:
                    await client.done.wait()
            nursery.cancel_scope.cancel()
        path = folder / "notes"
        notes = collections.Counter(path.read_text().split() if path.exists() else [])
        found: collections.Counter[str] = collections.Counter(
            dict.fromkeys(("lost", "two_outcomes", "run_twice", "not_run", "gaps", "texts"), 0)
        )
        outcomes: collections.Counter[str] = collections.Counter()
        for client in crowd:
            whole = await client.load()
            found.update(faults(client, whole, notes))
            outcomes.update(state for ends in whole.ended.values() for _, state in ends)
    finally:
        process.send_signal(signal.SIGTERM)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 30):
            await process.wait()
        process.kill()
    found["gaps"] += missing(folder / "gateway.db")
    return {
        "kills": kills,
        "seconds": round(time.monotonic() - began, 1),
        "prompts": sum(len(client.sent) for client in crowd),
        "resent": sum(client.resent for client in crowd),
        "outcomes": dict(outcomes),
        "faults": dict(found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=None, help="of the random moments; printed")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else int.from_bytes(os.urandom(4))
    with tempfile.TemporaryDirectory() as folder:
        result = {"seed": seed, **trio.run(soak, asked.kills, asked.clients, seed, Path(folder))}
    if asked.json:
        print(json.dumps(result))
    else:
        print(f"gateway-trio {gateway_trio.__version__}")
        for name, value in result.items():
            print(f"{name:>10}  {value}")
    sys.exit(any(result["faults"].values()))


if __name__ == "__main__":
    main()
