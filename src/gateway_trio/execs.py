"""Runs the process of a quick command: the only module that starts one.

The way of a command; each step leads to the next:

    start     a thread forks; stdin is null, stdout and stderr are one pipe, the session is its own
    run       until the leader exits by itself, or the switch (`Stop`) is thrown: from outside, by the clock
              (`timeout_seconds`, from the spawn), or by too much output
    end       only if it was thrown: TERM to the group, `term_seconds` for all of it, then KILL to whatever
              has its group or its marker (`procfs` says how that hits nobody else)
    settle    a short time for the pipe to end, as a child that was left running may hold it; then such
              children are counted, and ended if so configured
    deliver   what was read, to the last character (`exec_output`)

The reader, the deliverer and the clock run beside each other. An `emit` that waits for the store delays the
answer, and neither the command, nor its timeout, nor a stop.

A number is a process only until that is reaped, and Trio reaps the leader as soon as it exits, in this
thread. So `os.killpg` is safe directly after a look at `returncode`, with no checkpoint between; later, only
`procfs` is.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import trio

from gateway_trio import procfs, procscan
from gateway_trio.core.exec import Facts, Limits, Spawn, Status, environment, shell_argv, why_not_started
from gateway_trio.core.words import check_words
from gateway_trio.exec_output import Output

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = [
    "Facts",
    "Limits",
    "Spawn",
    "Status",
    "Stop",
    "check_words",
    "environment",
    "kill_at_once",
    "run_exec",
    "shell_argv",
]

KILL_SECONDS = 2.0  #: for what was sent a KILL to be gone

_COUNT_SECONDS = 2.0  # for looking at what was left running
_RECENT_SECONDS = 0.5  # in this time the numbers of processes do not go round


class Stop:
    """A switch that ends one command. Made at admission; it can be thrown before the command starts."""

    def __init__(self) -> None:
        self.process: trio.Process | None = None  #: the leader, once there is one
        self._status: Status | None = None
        self._thrown = trio.Event()

    def __call__(self, status: Status) -> None:
        """End the command, for this reason. Only the first call counts."""
        if self._status is None:
            self._status = status
            self._thrown.set()

    @property
    def status(self) -> Status | None:
        """The reason, or None if it was not thrown."""
        return self._status

    async def wait(self) -> None:
        """Wait until it is thrown."""
        await self._thrown.wait()


async def run_exec(spawn: Spawn, limits: Limits, stop: Stop, emit: Callable[[str], Awaitable[None]]) -> Facts:
    """Run a command to its end, hand its output to `emit`, and say how it went.

    Args:
      spawn: What to start.
      limits: What it may use.
      stop: Ends it when thrown; the clock and the output limit throw it too. Thrown before, nothing is
        started.
      emit: Takes the output, in order, in pieces that are not empty. While it waits, the command runs on, is
        timed and can be stopped; only the return waits for it.

    Returns:
      How it went. That it could not start, or did not end well, is no exception.

    Raises:
      ExceptionGroup: What `emit` raised. The command was killed as by cancelling.

    Cancelling kills the command, its group and its marked processes at once, waits a bounded time for what is
    left of them, and raises Cancelled. What `emit` has not got yet is lost.

    """
    if stop.status is not None:
        await trio.lowlevel.checkpoint()
        return Facts(stop.status, None, None, 0.0, 0, 0)
    try:
        read_end, write_end = os.pipe()
    except OSError as exc:
        return Facts(Status.SPAWN_FAILED, None, None, 0.0, 0, 0, error=why_not_started(spawn.argv[0], "", exc))
    pipe = trio.lowlevel.FdStream(read_end)
    output = Output(pipe, limits.secrets, limits.output_bytes, lambda: stop(Status.OUTPUT_LIMIT), emit)
    try:
        return await _Exec(spawn, limits, stop, output).run(write_end)
    finally:
        pipe.close()


class _Exec:
    """One command, from the fork to the last character."""

    def __init__(self, spawn: Spawn, limits: Limits, stop: Stop, output: Output) -> None:
        self._spawn = spawn
        self._limits = limits
        self._stop = stop
        self._output = output
        self._starting = trio.CancelScope()
        self._clock = trio.CancelScope()  # gets its deadline at the spawn
        self._started = trio.Event()
        self._process: trio.Process | None = None
        self._error: str | None = None
        self._spawned_at = self._exited_at = self._kill_at = 0.0
        self._returncode: int | None = None
        self._ended_by: Status | None = None  # set when the leader was sent a TERM
        self._background = 0

    @property
    def _target(self) -> procfs.Target:
        return procfs.Target(self._spawn.exec_id, self._process.pid if self._process else None)

    async def run(self, write_end: int) -> Facts:
        try:
            async with trio.open_nursery() as delivery:
                delivery.start_soon(self._output.deliver)
                await self._command(write_end)
                self._output.close()
        except BaseException:
            # The leader is dead by now, or was never born. (`deliver_cancel` is not called if it exited
            # before the cancel, and ends nobody who left the group.)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + KILL_SECONDS):
                if self._process:
                    await procfs.kill(self._target, seconds=KILL_SECONDS)
            raise
        return self._facts()

    def _facts(self) -> Facts:
        code = self._returncode
        if self._error is not None:
            status = Status.SPAWN_FAILED
        elif self._ended_by is not None:
            status = self._ended_by
        else:
            status = Status.EXITED if code is not None and code >= 0 else Status.SIGNALLED
        return Facts(
            status,
            exit_code=code if code is not None and code >= 0 else None,
            signal=-code if code is not None and code < 0 else None,
            seconds=self._exited_at - self._spawned_at,
            bytes=self._output.bytes,
            cut=self._output.cut,
            background=self._background,
            error=self._error,
        )

    async def _command(self, write_end: int) -> None:
        """Start, run, end, settle."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_when_stopped)
            await self._start(nursery, write_end)
            if self._process is not None and self._started.is_set():
                nursery.start_soon(self._output.read)
                self._returncode = await self._process.wait()
                self._exited_at = trio.current_time()
            if self._process is not None:
                await self._settle()
            nursery.cancel_scope.cancel()

    async def _start(self, nursery: trio.Nursery, write_end: int) -> None:
        """Start the process, or note why there is none. Closes `write_end`, as the process has its own."""
        cwd = _home(self._spawn.env) if self._spawn.cwd is None else self._spawn.cwd
        try:
            with self._starting:
                self._process = await nursery.start(self._run_process(write_end, cwd))
                self._stop.process = self._process
                self._spawned_at = trio.current_time()
                self._clock.deadline = self._spawned_at + self._limits.timeout_seconds
                self._started.set()
        except (OSError, ValueError) as exc:
            self._error = why_not_started(self._spawn.argv[0], cwd, exc)
        finally:
            os.close(write_end)
        if self._starting.cancelled_caught:
            self._ended_by = self._stop.status

    def _run_process(self, write_end: int, cwd: str) -> Callable[..., Awaitable[object]]:
        return functools.partial(
            trio.run_process,
            self._spawn.argv,
            stdin=subprocess.DEVNULL,
            stdout=write_end,
            stderr=write_end,
            check=False,
            start_new_session=True,
            umask=0o077,
            env={**self._spawn.env, procfs.MARKER: self._spawn.exec_id},
            cwd=cwd,
            deliver_cancel=self._deliver_cancel,
        )

    async def _deliver_cancel(self, process: trio.Process) -> None:
        """Kill the group, when Trio was cancelled while the leader runs."""
        self._process = process  # a cancel may come before anyone was told of it
        _signal_group(process, signal.SIGKILL)

    async def _end_when_stopped(self) -> None:
        """Wait for the switch or the clock, then be polite, then not. Cancelled once the leader is gone."""
        with self._clock:
            await self._stop.wait()
        if self._clock.cancelled_caught:
            self._stop(Status.TIMEOUT)
        self._starting.cancel()  # which may be waiting for a thread; does nothing after the start
        await self._started.wait()
        if not self._process or not _signal_group(self._process, signal.SIGTERM):
            return
        self._ended_by = self._stop.status
        self._kill_at = trio.current_time() + self._limits.term_seconds
        _signal_group(self._process, signal.SIGCONT)  # one that is stopped could not die of the TERM
        await trio.sleep_until(self._kill_at)
        _signal_group(self._process, signal.SIGKILL)

    async def _settle(self) -> None:
        """See to what the leader left: the pipe's rest, and processes."""
        if self._ended_by is None:
            await self._output.wait_end()
            recent = trio.current_time() - self._spawned_at < _RECENT_SECONDS
            leader = self._process.pid if recent and self._process else 0
            self._background = await procfs.count(self._target, newer_than=leader, seconds=_COUNT_SECONDS)
            if self._background and self._limits.background == "kill":
                await procfs.kill(self._target, seconds=KILL_SECONDS)
            return
        if self._target.group is not None:
            with trio.move_on_at(self._kill_at):
                await procfs.wait_group(self._target.group)
        self._background = await procfs.kill(self._target, seconds=KILL_SECONDS)
        await self._output.wait_end()


def _signal_group(process: trio.Process, sig: signal.Signals) -> bool:
    """Signal the leader's group. Return False, and signal nobody, if the leader has been reaped."""
    if process.returncode is not None:
        return False
    with contextlib.suppress(PermissionError):  # another user's, all of them
        os.killpg(process.pid, sig)
    return True


def _home(env: Mapping[str, str]) -> str:
    return env.get("HOME") or os.path.expanduser("~")  # noqa: PTH111


def kill_at_once(exec_id: str, stop: Stop) -> None:
    """Send SIGKILL to all processes of an exec, without waiting for anything."""
    if stop.process is not None:
        _signal_group(stop.process, signal.SIGKILL)
    if procscan.supported():
        for pid in procscan.alive(procfs.Target(exec_id)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
