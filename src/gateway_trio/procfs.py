"""Finds the processes of a command, and ends them, without ever hitting a stranger.

What a command started is known by two signs, and one is enough:

    the group    its process group is the command's, in the command's own session
    the marker   `GATEWAY_TRIO_EXEC_ID=<id>` stands in the environment that it was started with

A process can leave the group (`setsid`), and a process can be given another environment (`env -i`); one that
did both is not found. Zombies, and processes that are in the middle of ending, are not alive.

A number is not a process: numbers are given out again. So whoever is to be signalled is pinned first
(`pidfd_open`), looked at again, and signalled through the descriptor. The number of a *group* is looked at
for the same reason. While a group has a member its number is given to no new process; so, once its leader has
been reaped, something that has that number is a stranger, and so are those in a group of that number. All
functions here expect that: **they are for after the leader has been reaped.** Before, `os.killpg` is safe.

Reading /proc (`procscan`) can block, as a process in trouble holds its own lock. So it happens in threads
that can be left behind, with a limiter of their own: threads that an agent blocks do not delay it. Waiting is
for descriptors.

Where /proc or pidfds are missing (macOS) there is only the group, and only `killpg`: no marker, no counts.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, TypeVar

import trio

from gateway_trio.procscan import (
    MARKER,
    Target,
    alive,
    belongs,
    group_exists,
    kill_group,
    last_pid,
    supported,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["MARKER", "Target", "count", "find", "kill", "supported", "wait_group"]

_ROUNDS = 100  # of killing; a storm of forks needs a few
_WAITED_FOR = 256  # processes whose end is waited for in a round; the next scan sees the others
_THREADS = 8

T = TypeVar("T")

_limiter: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("gateway_trio_procfs")


async def count(target: Target, *, seconds: float, newer_than: int = 0) -> int:
    """Return how many processes of `target` are alive.

    Cancelling leaves the thread that looks behind.

    Args:
      target: Which are meant.
      seconds: How long that may take; beyond, 1 stands for a group that exists.
      newer_than: Look only at processes that were started after this one was: the leader's number, if it was
        started so recently that the numbers cannot have gone round since. If no number was given out after
        it, nothing was started, and no thread is needed. 0: look at all.

    """
    last = last_pid() if newer_than else 0
    if last and last == newer_than:
        await trio.lowlevel.checkpoint()
        return 0
    if supported():
        with trio.move_on_after(seconds):
            return await _in_thread(lambda: len(set(alive(target, newer_than))))
    await trio.lowlevel.checkpoint()
    return int(group_exists(target.group))


async def find(target: Target, *, seconds: float) -> list[int]:
    """Return the processes of `target`, their numbers in order; none where /proc cannot be read.

    Cancelling leaves the thread that looks behind, and so does the end of `seconds`: then what was found is not
    known, and none are returned.
    """
    if supported():
        with trio.move_on_after(seconds):
            return await _in_thread(lambda: sorted(set(alive(target))))
    await trio.lowlevel.checkpoint()
    return []


async def kill(target: Target, *, seconds: float) -> int:
    """Send SIGKILL to every process of `target`, wait until each has ended, look again, until none is left.

    Cancelling stops it between two steps; what was signalled stays so.

    Args:
      target: Which are meant.
      seconds: How long all of it may take.

    Returns:
      How many are left, as far as is known: those that we may not signal (another user's), and those that did
      not end in time.

    """
    if not supported():
        await trio.lowlevel.checkpoint()
        kill_group(target.group)
        return 0
    left = int(group_exists(target.group))
    with trio.move_on_after(seconds):
        for _ in range(_ROUNDS):
            left, reached = await _round(target, signal.SIGKILL)
            if not reached:
                break
    return left


async def wait_group(group: int) -> None:
    """Wait until no process of the group is left that we may signal. The caller brings the deadline."""
    if not group_exists(group):
        await trio.lowlevel.checkpoint()
        return
    if not supported():
        await trio.sleep_forever()
    target = Target(exec_id="", group=group)
    reached = 1
    while reached:
        _, reached = await _round(target, 0)


# --- a round: pin, look again, signal, wait -------------------------------------------------------


class _Pidfds:
    """What a thread opens and the loop waits on and closes, even while the thread still opens some."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fds: list[int] = []
        self._closed = False

    def __iter__(self) -> Iterator[int]:
        return iter(self._fds)

    def keep(self, fd: int) -> None:
        with self._lock:
            if not self._closed and len(self._fds) < _WAITED_FOR:
                self._fds.append(fd)
                return
        os.close(fd)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        while self._fds:
            os.close(self._fds.pop())


async def _round(target: Target, sig: int) -> tuple[int, int]:
    """Signal everyone once and wait for their end. Return how many were found, and how many not in vain."""
    pidfds = _Pidfds()
    try:
        found = await _in_thread(lambda: _signal_all(target, sig, pidfds))
        for fd in pidfds:  # all of them are ending at the same time, so one after the other will do
            await trio.lowlevel.wait_readable(fd)
    finally:
        pidfds.close()
    return found


def _signal_all(target: Target, sig: int, pidfds: _Pidfds) -> tuple[int, int]:
    found = reached = 0
    for pid in alive(target):
        found += 1
        reached += _signal(pid, target, sig, pidfds)
    return found, reached


def _signal(pid: int, target: Target, sig: int, pidfds: _Pidfds) -> bool:
    """Signal `pid`, if it is still one of them. Return whether another look can find anything else."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:  # it has ended just now
        return True
    except OSError:  # no descriptor is free
        return False
    signalled = False
    try:
        group = os.getpgid(pid)
        if belongs(pid, target):
            signal.pidfd_send_signal(fd, sig)
            signalled = True
            if group != os.getpgrp():
                # All of it in one step: one that forks and exits in a loop is faster than any scan. Its group is
                # of a session that the command began, so nobody else can be in it.
                os.killpg(group, sig)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    finally:
        if signalled:
            pidfds.keep(fd)
        else:
            os.close(fd)
    return True


async def _in_thread(look: Callable[[], T]) -> T:
    try:
        limiter = _limiter.get()
    except LookupError:  # the first time in this run
        limiter = trio.CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    return await trio.to_thread.run_sync(look, abandon_on_cancel=True, limiter=limiter)
