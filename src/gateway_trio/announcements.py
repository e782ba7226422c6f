"""What the program says by itself: where it is when it opens, and how its drain went."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gateway_trio import log
from gateway_trio.choose_store import store_path
from gateway_trio.config import Config, secrets

if TYPE_CHECKING:
    from gateway_trio.gateway import Gateway
    from gateway_trio.report import DrainReport

__all__ = ["say_hello", "write_report"]

_log = log.get_logger("process")


def say_hello(gateway: Gateway, config: Config, environ: Mapping[str, str]) -> None:
    """Print where the gateway is, and log what an operator should know of how it is set up."""
    host, port = gateway.addresses[0][:2]
    shown = f"[{host}]" if ":" in host else host
    base = f"ws://{shown}:{port}"
    _print(f"gateway-trio, pid {os.getpid()}: {base}/chat and {base}/acp")
    _log.info("open", pid=os.getpid(), addresses=[f"{a[0]}:{a[1]}" for a in gateway.addresses])
    if gateway.store.durable:
        _log.info("store", path=str(store_path(config.store, environ)))
    else:
        _log.warning("sessions are kept in memory only and are forgotten at exit")
    if gateway.entrance.tokens:
        _log.info("tokens", names=[token.name for token in config.auth.tokens])
    else:
        _log.warning("no tokens are configured: everyone on loopback is admin")
    _, short = secrets(config, environ)
    for name in short:
        _log.warning("a value is too short to be kept out of an exec's output", variable=name)


def write_report(report: DrainReport, path: Path) -> None:
    """Write the report of a drain as JSON; where that cannot be, the log says so, and has it too."""
    try:
        path.write_text(json.dumps(report.to_json(), indent=2) + "\n")
    except OSError as fault:
        _log.warning("the report could not be written", path=str(path), error=str(fault))


def _print(line: str) -> None:
    """Print for a person; where nobody reads that any more, print no more: it is no reason to end."""
    try:
        print(line, flush=True)
    except OSError as fault:
        _log.warning("nothing is printed any more", error=str(fault))
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
