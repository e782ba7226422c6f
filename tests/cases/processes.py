"""What the machine says of processes: /proc, and nothing of the code under test."""

from __future__ import annotations

import time
from pathlib import Path

PATIENCE = 60.0


def marked(exec_id: str) -> list[int]:
    """Return the live processes of an exec, by the marker in their environment. (A zombie's is empty.)"""
    entry = f"GATEWAY_TRIO_EXEC_ID={exec_id}".encode()
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and entry in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            pass
    return found


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def most_memory(pid: int) -> int:
    """Return the most bytes that a process had resident so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def wait_until(holds, seconds: float = PATIENCE) -> None:
    """Look again and again at what nobody tells of; fail if it does not come."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"did not come in {seconds} s"
        time.sleep(0.02)
