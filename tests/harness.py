"""A real gateway in a process of its own, and clients that we did not write (`websockets`), for plain tests.

Everything that waits has a limit, and nothing sleeps: it waits for a frame, a line of the log, or the exit.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from schema import Checker

PATIENCE = 60.0  # seconds; what is waited for and does not come in this time is a failure

BASE = """
[server]
port = 0
"""

MEMORY = """
[store]
type = "memory"
"""


class Program:
    """`gateway-trio serve` with this config, ready when made. Use it as a context manager.

    Where the config has no `[store]` it is in memory.

    `script` is a Python program of the test's own that takes the same arguments, to run in its place.
    """

    def __init__(
        self,
        tmp_path: Path,
        config: str = "",
        *,
        env: dict[str, str] | None = None,
        args=(),
        ready=True,
        script: Path | None = None,
    ):
        self.config = tmp_path / "gateway.toml"
        if "[server]" not in config:
            config = BASE + config
        if "restart =" not in config:  # most tests are about a process that ends
            config = config.replace("[server]", '[server]\nrestart = "exit"', 1)
        if "[store]" not in config:
            config += MEMORY
        self.config.write_text(config)
        self.config.chmod(0o600)
        self.report_path = tmp_path / "report.json"
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [
                sys.executable,
                *(("-m", "gateway_trio") if script is None else (script,)),
                "serve",
                "--config",
                self.config,
                "--report",
                self.report_path,
                *args,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        self.log: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._readers = [
            threading.Thread(target=self._read, args=(pipe,), daemon=True)
            for pipe in (self.process.stdout, self.process.stderr)
        ]
        for reader in self._readers:
            reader.start()
        self.port = 0
        if ready:
            self.wait_log('"event": "open"')
            opened = next(json.loads(line) for line in self.log if '"event": "open"' in line)
            self.port = int(opened["addresses"][0].rsplit(":", 1)[1])

    def _read(self, pipe) -> None:
        for line in pipe:
            self.log.append(line)
            self._lines.put(line)
        pipe.close()
        self._lines.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self._kill_execs()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)

    def _kill_execs(self) -> None:
        """Kill what the gateway's execs left, where a test failed: each is a session of its own."""
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(") ")[2].split()
                pid, parent = int(stat.parent.name), int(fields[1])
                if parent == self.pid and os.getpgid(pid) == pid:
                    os.killpg(pid, signal.SIGKILL)

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_log(self, part: str) -> str:
        """Wait for a line of stdout or stderr that holds `part`, and return it. Fails if the program ends first."""
        for line in list(self.log):
            if part in line:
                return line
        end = time.monotonic() + PATIENCE
        closed = 0
        while True:
            line = self._lines.get(timeout=max(0.01, end - time.monotonic()))
            if line is None:
                closed += 1
                assert closed < 2, f"the program ended without {part!r}: {''.join(self.log)}"
            elif part in line:
                return line

    def signal(self, number: int = signal.SIGTERM) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = 90.0) -> int:
        """Wait for the exit and return the code."""
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(PATIENCE)
        return code

    @property
    def report(self) -> dict:
        return json.loads(self.report_path.read_text())

    @property
    def text(self) -> str:
        return "".join(self.log)

    def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
        """GET a page; return status and body."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()

    def scrape(self, headers: dict[str, str] | None = None) -> Metrics:
        """GET /metrics; return what it says."""
        status, text = self.get("/metrics", headers)
        assert status == 200, text
        return Metrics(text)

    def open(self, path: str, **more):
        """Open a WebSocket of the `websockets` package; its connection is its own context manager."""
        more = {"open_timeout": PATIENCE, "close_timeout": PATIENCE, "max_size": 2**20, **more}
        return connect(f"ws://127.0.0.1:{self.port}{path}", **more).__enter__()

    def chat(self, session: str = "main", **more) -> Chat:
        return Chat(self.open(f"/chat?session={session}", **more))

    def acp(self, *, ours: bool = True, **more) -> Acp:
        client = Acp(self.open("/acp", **more))
        client.initialize(ours=ours)
        return client


class _Client:
    """What both clients have. `code` is the close code, once the gateway has closed."""

    def __init__(self, websocket):
        self.websocket = websocket

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.websocket.close()

    def close(self):
        self.websocket.close()

    @property
    def code(self):
        """Read to the end; return the code with which the gateway closed."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.take()
        return self.websocket.protocol.close_code

    def take(self):
        raise NotImplementedError


class Chat(_Client):
    """A `/chat` client."""

    def send(self, text: str) -> None:
        self.websocket.send(text)

    def take(self, timeout: float = PATIENCE) -> str:
        return self.websocket.recv(timeout)

    def until(self, *parts: str) -> list[str]:
        """Return all frames up to one that holds every part."""
        frames = [self.take()]
        while not all(part in frames[-1] for part in parts):
            frames.append(self.take())
        return frames

    def ask(self, text: str) -> str:
        """Send and return the next frame that is no notice."""
        self.send(text)
        while (frame := self.take()).startswith("· "):
            pass
        return frame


class Metrics:
    """Prometheus text, read by its own parser. `metrics("name", label="value")` is a sample's value."""

    def __init__(self, text: str):
        self.families = list(text_string_to_metric_families(text))
        samples = [sample for family in self.families for sample in family.samples]
        self.samples = {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples}
        assert len(samples) == len(self.samples), "a sample stands twice"

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples[f"gateway_trio_{name}", tuple(sorted(labels.items()))]

    def one(self, name: str) -> str:
        """Return the only label of a metric whose sample is 1."""
        (label,) = self.all(name)
        return label

    def all(self, name: str) -> dict[str, float]:
        """Return the samples of a metric with one label that are not 0."""
        found = {labels: value for (of, labels), value in self.samples.items() if of == f"gateway_trio_{name}"}
        return {labels[0][1]: value for labels, value in found.items() if value}


class Refused(Exception):
    def __init__(self, error):
        super().__init__(error["message"])
        self.code, self.data = error["code"], error.get("data") or {}
        self.reason = self.data.get("reason")


class Acp(_Client):
    """An `/acp` client. `frames` has every frame, parsed, in its order. Each is held against ACP's schema."""

    def __init__(self, websocket):
        super().__init__(websocket)
        self.frames: list[dict] = []
        self.checker = Checker()
        self._ids = 0

    def take(self, timeout: float = PATIENCE) -> dict:
        frame = self.checker.check(self.websocket.recv(timeout))
        self.frames.append(frame)
        return frame

    def send(self, frame) -> None:
        text = frame if isinstance(frame, str | bytes) else json.dumps(frame)
        self.checker.sent(text)
        self.websocket.send(text)

    def notify(self, method: str, params: dict) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def ask(self, method: str, params: dict | None = None) -> int:
        self._ids += 1
        self.send({"jsonrpc": "2.0", "id": self._ids, "method": method, "params": params or {}})
        return self._ids

    def until(self, test) -> dict:
        """Return the first frame, of those there are or come, for which the test holds."""
        for frame in self.frames:
            if test(frame):
                return frame
        while not test(frame := self.take()):
            pass
        return frame

    def answer(self, id_: int) -> dict:
        frame = self.until(lambda f: f.get("id") == id_ and "method" not in f)
        if "error" in frame:
            raise Refused(frame["error"])
        return frame["result"]

    def call(self, method: str, params: dict | None = None) -> dict:
        return self.answer(self.ask(method, params))

    def initialize(self, *, ours: bool = True) -> dict:
        meta = {"_meta": {"gateway-trio": {}}} if ours else {}
        return self.call("initialize", {"protocolVersion": 1, "clientCapabilities": meta})

    def new_session(self) -> str:
        return self.call("session/new", {"cwd": "/", "mcpServers": []})["sessionId"]

    def ask_prompt(self, session: str, text: str, **ours) -> int:
        params = {"sessionId": session, "prompt": [{"type": "text", "text": text}]}
        if ours:
            params["_meta"] = {"gateway-trio": ours}
        return self.ask("session/prompt", params)

    def prompt(self, session: str, text: str, **ours) -> dict:
        return self.answer(self.ask_prompt(session, text, **ours))

    def until_state(self, state: str) -> dict:
        """Return the first change of a turn's or exec's state to this one."""
        return self.until(
            lambda f: any(ours_of(f).get(work, {}).get("state") == state for work in ("turn", "exec"))
        )

    def text(self, kind: str = "agent_message_chunk") -> str:
        """Return what all chunks of a kind say together, each message put together by its offsets."""
        messages: dict[str, str] = {}
        for frame in self.frames:
            update = (frame.get("params") or {}).get("update") or {}
            if update.get("sessionUpdate") == kind:
                before = messages.get(update["messageId"], "")
                messages[update["messageId"]] = before[: ours_of(frame).get("at", 0)] + update["content"]["text"]
        return "".join(messages.values())


def ours_of(frame: dict) -> dict:
    """Return what an update carries under `_meta["gateway-trio"]`."""
    update = (frame.get("params") or {}).get("update") or {}
    return (update.get("_meta") or {}).get("gateway-trio") or {}


def alive(pid: int) -> bool:
    """Whether a process runs (and is no zombie)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False
