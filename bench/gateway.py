"""Starts the real program for a benchmark, and ends it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self


class Program:
    """`gateway-trio serve` with this config; `pid`, `port`, and after `wait` its `report`.

    Its store, if the config names no other, is on the disk of temporary files.

    `script` is a program to run in its place, with an agent of its own; it takes the same arguments.
    """

    def __init__(self, config: str, *, script: Path | None = None, env: dict[str, str] | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        (folder / "gateway.toml").write_text(config)
        (folder / "gateway.toml").chmod(0o600)
        self.report_path = folder / "report.json"
        self._log = (folder / "log").open("w")
        program = ["-m", "gateway_trio"] if script is None else [script]
        command = [sys.executable, *program, "serve", "--config", folder / "gateway.toml"]
        self.process = subprocess.Popen(
            [*command, "--report", self.report_path],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "XDG_STATE_HOME": str(folder), **(env or {})},
        )
        hello = self.process.stdout.readline()
        if not hello:
            raise SystemExit((folder / "log").read_text())
        self.pid = self.process.pid
        self.port = int(hello.split("ws://")[1].split("/")[0].rsplit(":", 1)[1])

    def wait(self) -> float:
        """Wait for the exit; return the time at which it was seen."""
        self.process.wait(90)
        return time.monotonic()

    @property
    def report(self) -> dict:
        return json.loads(self.report_path.read_text())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self._log.close()
        self._folder.cleanup()
