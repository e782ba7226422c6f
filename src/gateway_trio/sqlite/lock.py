"""One gateway a database: a lock that names its holder and vanishes with its process.

It is an flock(2) on a file beside the database. The kernel lets go of it when the descriptor is closed, so with
`kill -9` too, and with execve(2), since Python's descriptors are closed by that. Another gateway in the same
process is kept out as well, which fcntl(2)'s locks would not do. The file itself stays: to remove it would let
two gateways hold locks on two files of one name.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from gateway_trio.store import StoreUnavailable

__all__ = ["Lock"]

_MOST_BYTES = 4096  # of what a holder says of itself


class Lock:
    """Hold the lock of the database at `path` from now until `release`.

    Raises `StoreUnavailable`, which names the holder, if another gateway has it, and OSError if the file cannot
    be opened.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, _MOST_BYTES, 0)
            os.close(self._descriptor)
            raise StoreUnavailable(f"the store {path} is in use by {_named(holder)}") from None
        except OSError:
            os.close(self._descriptor)
            raise
        # On a full disk it is held without a name.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, _me(), 0)

    def release(self) -> None:
        """Let go; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _me() -> bytes:
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}).encode()


def _named(holder: bytes) -> str:
    try:
        said = json.loads(holder)
        since = datetime.fromtimestamp(said["since"], UTC)
        return f"another gateway: pid {said['pid']} on {said['host']}, since {since:%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, TypeError, KeyError):
        return "another gateway, which does not say which"
