"""Looks at processes, in /proc and without it: synchronous, and may block. `procfs` says what for."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MARKER", "Target", "alive", "belongs", "group_exists", "kill_group", "last_pid", "supported"]

MARKER = "GATEWAY_TRIO_EXEC_ID"

_LOOKS = 200  # at a process in the middle of its execve
_LOOK_SECONDS = 0.001  # between two of them: it may wait for a processor, and nothing tells when it goes on
_FEW = 1000  # numbers: to look at them one by one takes less time than a list of all
_CHASES = 1000
_READ_BYTES = 16 * 1024  # a larger buffer costs more than it saves
_PF_EXITING = 0x4
_ENV_END = 48  # of `_stat`: 0 in the middle of an execve
_PF_KTHREAD = 0x200000


@frozen
class Target:
    """Which processes are meant.

    Args:
      exec_id: The marker's value.
      group: The process group, whose leader has been reaped. None: only the marker counts, as for an orphan
        of an earlier gateway.

    """

    exec_id: str
    group: int | None = None


@functools.cache
def supported() -> bool:
    """Return whether /proc shows this process under its own number, and pidfds work."""
    try:
        shown = Path("/proc/self").readlink().name
        os.close(os.pidfd_open(os.getpid()))
    except (OSError, AttributeError):  # no /proc; an old kernel; not Linux
        return False
    return shown == str(os.getpid())


def alive(target: Target, after: int = 0) -> Iterator[int]:
    """Yield the processes of `target`; with `after`, only those whose numbers were given out after that one.

    A list of processes is old at once: one of them may have forked since and be gone. So after the list come
    the numbers that were given out meanwhile, until there are no new ones. (A number may come twice.)
    """
    seen = last_pid()
    if after and after <= seen <= after + _FEW:
        seen = after
    else:
        for name in os.listdir("/proc"):  # noqa: PTH208
            if name.isdecimal() and belongs(int(name), target):
                yield int(name)
    for _ in range(_CHASES):
        last = last_pid()
        if last == seen:
            break
        new = range(seen + 1, last + 1) if last > seen else range(1, last + 1)  # they have gone round
        yield from (pid for pid in new if belongs(pid, target) and _is_process(pid))
        seen = last


def belongs(pid: int, target: Target) -> bool:
    """Return whether `pid` is alive, is not ourselves, and has one of the two signs."""
    if pid == os.getpid():
        return False
    try:
        return (_in_group(pid, target.group) or _marked(pid, target.exec_id)) and _is_alive(pid)
    except OSError:  # it has gone, or another user's environment is none of our business
        return False


def _in_group(pid: int, group: int | None) -> bool:
    return os.getpgid(pid) == group == os.getsid(pid) and not Path(f"/proc/{group}").exists()


def _marked(pid: int, exec_id: str) -> bool:
    marker = f"\0{MARKER}={exec_id}\0".encode()
    for _ in range(_LOOKS):
        if environ := _read(pid, "environ"):
            return marker in b"\0" + environ + b"\0"
        if not _is_alive(pid):
            return False
        if int(_stat(pid)[_ENV_END]):  # it was given no environment, or the execve ended between the two looks
            return marker in b"\0" + _read(pid, "environ") + b"\0"
        time.sleep(_LOOK_SECONDS)
    return False


def _is_alive(pid: int) -> bool:
    """Return whether `pid` is a process, of a program, that has not ended and is not ending."""
    fields = _stat(pid)
    state, flags, threads = fields[0], int(fields[6]), int(fields[17])
    if flags & _PF_KTHREAD:
        return False
    # A first thread that has ended shows as a zombie for as long as the others run.
    return threads > 1 or (state not in b"ZXx" and not flags & _PF_EXITING)


def _stat(pid: int) -> list[bytes]:
    """Return the fields of proc_pid_stat(5) from the third one, the state, on."""
    return _read(pid, "stat").rpartition(b") ")[2].split()  # the name before that may hold anything


def _is_process(pid: int) -> bool:
    """Return whether it is a process's number. (A thread's can be looked at too, but is not listed.)"""
    try:
        return _read(pid, "status").partition(b"\nTgid:")[2].split()[0] == b"%d" % pid
    except OSError:
        return False


def _read(pid: int, name: str) -> bytes:
    fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)  # half the time of Path.read_bytes
    try:
        pieces = []
        while piece := os.read(fd, _READ_BYTES):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


def last_pid() -> int:
    """Return the number that was given out last to a process or thread, or 0 where the kernel does not tell.

    (The one in /proc/loadavg will not do: lxcfs puts a stale one there.)
    """
    try:
        return int(Path("/proc/sys/kernel/ns_last_pid").read_bytes())
    except (OSError, ValueError):
        return 0


def group_exists(group: int | None) -> bool:
    """Return whether the group has a member, if only a zombie. Where /proc is missing that is all we know."""
    if group is None:
        return False
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS says that of one that has only zombies left
        return sys.platform == "linux"
    return True


def kill_group(group: int | None) -> None:
    """Send SIGKILL to the group if it has a member: the best that can be done without pidfds."""
    if group is not None and group_exists(group):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
