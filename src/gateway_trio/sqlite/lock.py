"""One gateway a database: a lock that names its holder and vanishes with its process.

It is an flock(2) on a file beside the database. The kernel lets go of it when the descriptor is closed, so with
`kill -9` too, and with execve(2), since Python's descriptors are closed by that. Another gateway in the same
process is kept out as well, which fcntl(2)'s locks would not do. The file itself stays: to remove it would let
two gateways hold locks on two files of one name.

Whoever takes the lock writes its name into the file. Until it has, the file names nobody, or somebody dead. So
there is a second lock, which is held only while one takes the first and writes its name, or finds it taken and
reads whose it is: those that start at once do this one after the other.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from gateway_trio.store import StoreUnavailable

__all__ = ["Lock"]

_MOST_BYTES = 4096  # of what a holder says of itself


class Lock:
    """Hold the lock of the database at `path` from now until `release`.

    It waits for others that are just starting, for as long as it takes them to write down who they are. Raises
    `StoreUnavailable`, which names the holder, if another gateway has it, and OSError if a file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        with _alone(path.with_name(f"{path.name}.starting")):
            self._descriptor = _open(path.with_name(f"{path.name}.lock"))
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(self._descriptor, _MOST_BYTES, 0)
                self.release()
                raise StoreUnavailable(f"the store {path} is in use by {_named(holder)}") from None
            except OSError:
                self.release()
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


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Wait until nobody else is in this block with the same file. Blocks the thread."""
    descriptor = _open(file)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _open(file: Path) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT, 0o600)


def _me() -> bytes:
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}).encode()


def _named(holder: bytes) -> str:
    try:
        said = json.loads(holder)
        since = datetime.fromtimestamp(said["since"], UTC)
        return f"another gateway: pid {said['pid']} on {said['host']}, since {since:%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, TypeError, KeyError):
        return "another gateway, which does not say which"
