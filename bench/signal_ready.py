"""From the exec of the program to its first blocked signal: before that a SIGTERM kills it, as any other program.

The mask of the new process is read from /proc/PID/status again and again until SIGTERM is in it. The floor, in
turn with it: a bare interpreter that only blocks the signal. And the way on from there to the open doors.

    python bench/signal_ready.py [--rounds 30] [--json]

Target: under 60 ms.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import finish, line, spread

FLOOR = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM}); signal.pause()"
CONFIG = "[server]\nport = 0\n"


def blocks(pid: int) -> bool:
    for entry in Path(f"/proc/{pid}/status").read_text().splitlines():
        if entry.startswith("SigBlk:"):
            return bool(int(entry.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def until_blocked(command: list[str], environ: dict[str, str]) -> tuple[float, float | None]:
    """Return the seconds from before the spawn until SIGTERM is blocked, and until the first line of output."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environ)
    try:
        while not blocks(process.pid):
            if process.poll() is not None or time.monotonic() > start + 20:
                raise SystemExit(f"{command} never blocked anything")
        blocked = time.monotonic() - start
        said = process.stdout.readline() if "serve" in command else ""
        opened = time.monotonic() - start if said else None
        if said:
            process.send_signal(signal.SIGTERM)
            if process.wait(60) != 0:
                raise SystemExit("it did not end well")
        return blocked, opened
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "gateway.toml"
        config.write_text(CONFIG)
        config.chmod(0o600)
        serve = [sys.executable, "-m", "gateway_trio", "serve", "--config", str(config)]
        for _ in range(options.rounds):
            floor, _ = until_blocked([sys.executable, "-c", FLOOR], dict(os.environ))
            blocked, opened = until_blocked(serve, dict(os.environ))
            figures.setdefault("floor: a bare interpreter blocks it", []).append(floor)
            figures.setdefault("exec to the first blocked signal", []).append(blocked)
            figures.setdefault("exec to the open doors", []).append(opened or 0.0)
    if not options.json:
        for name, values in figures.items():
            print(line(name, values))
        median = spread(figures["exec to the first blocked signal"])["median"]
        print(f"    {'under' if median < 0.06 else 'over'} 60 ms")
    finish(options.json, {name: spread(values) for name, values in figures.items()})


if __name__ == "__main__":
    main()
