"""The program's signals: what each does to the gateway, and that none is lost.

SIGTERM, SIGINT   first: drain. second: cancel turns now, little time for execs. third: out, at once.
SIGUSR1           drain for a restart, if what is installed and the config can be used
SIGHUP            read the config again, if it can be used

One that comes before the gateway stands ends the start, and one that comes after its end is the successor's, where
the process replaces itself: blocked signals stay pending over an exec (execve(2)).
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial

import trio

from gateway_trio import log
from gateway_trio.core.phases import Reason
from gateway_trio.gateway import Gateway

__all__ = ["SIGNALS", "Signals"]

#: Signals that come within this time are one: a terminal and a supervisor may both send theirs.
_ONE_SIGNAL_SECONDS = 0.25

#: For threads to begin what they are asked to do.
_THREADS_SECONDS = 1.0
_MOST_THREADS = 100

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)

_log = log.get_logger("process")


class Signals:
    """What came, and what it does.

    Args:
        starting: is cancelled by one that ends the start.
        out: is called by the third SIGTERM or SIGINT, with its number, and does not return.

    """

    def __init__(self, starting: trio.CancelScope, out: Callable[[int], object]) -> None:
        self.early: int | None = None  #: a signal that came before the gateway stood
        self._reload_early = False  #: and whether SIGHUP did: the file may have changed since it was read
        self._late: list[int] = []  #: those that came after its end
        self._starting = starting
        self._out = out
        self._gateway: Gateway | None = None
        self._asked = 0
        self._last = float("-inf")

    async def receive(self, signals: AsyncIterator[int]) -> None:
        """Do what each says. Runs until cancelled."""
        async for number in signals:
            self._take(number)

    def attach(self, gateway: Gateway) -> None:
        """The gateway stands: from now on it is told. It is told at once what came before."""
        self._gateway = gateway
        if self.early is not None:
            self._take(self.early)
        elif self._reload_early:
            self._take(signal.SIGHUP)

    def outlive(self) -> None:
        """From now on no signal ends the process by default: where nobody receives it, it is kept for `leave`."""
        for number in SIGNALS:
            signal.signal(number, lambda number, _: self._late.append(number))

    async def hold(self) -> None:
        """Block signals, but what came before is received. Not to be cancelled."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        await _block_in_threads()
        # One that came just before is on its way to `receive`. Trio brings what other threads and handlers ask for
        # in its order, and runs whom it wakes in the same pass as this task: one pass later it has run.
        arrived = trio.Event()
        trio.lowlevel.current_trio_token().run_sync_soon(arrived.set, idempotent=True)
        await arrived.wait()
        await trio.lowlevel.checkpoint()

    def leave(self) -> None:
        """Leave pending what came since the gateway closed, for whatever is run in this process now."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        for number in self._late:
            signal.raise_signal(number)

    def _take(self, number: int) -> None:
        name = signal.Signals(number).name
        _log.info("signal", signal=name)
        if self._gateway is None:
            self._take_early(number)
        elif self._gateway.closed.is_set():
            self._late.append(number)
        elif number == signal.SIGUSR1:
            self._gateway.control.restart(
                name,
                lambda answer: _log.info("restart", answer=answer),
                lambda fault: _log.warning("restart refused", reason=fault.reason, why=fault.message),
            )
        elif number == signal.SIGHUP:
            # What came of it is logged by `reload` itself; here nobody else waits for it.
            self._gateway.control.reload(
                name, lambda _: None, lambda fault: _log.warning("reload refused", reason=fault.reason)
            )
        else:
            self._end(self._gateway, number, name)

    def _take_early(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._reload_early = True
            return
        if self.early in (None, signal.SIGUSR1):  # with a restart and a shutdown, it is a shutdown
            self.early = number
        self._starting.cancel()

    def _end(self, gateway: Gateway, number: int, name: str) -> None:
        now = trio.current_time()
        repeated = now - self._last < _ONE_SIGNAL_SECONDS
        self._last = now
        if repeated:
            return
        self._asked += 1
        if self._asked == 1:
            gateway.coordinator.drain(Reason.SHUTDOWN, by=name)
        elif self._asked == 2:  # noqa: PLR2004 - the table above
            gateway.coordinator.hurry(by=name)
        else:
            self._out(number)


async def _block_in_threads() -> None:
    """Block signals in the threads that Trio keeps for later: the kernel gives a signal to any that takes it.

    A thread that an agent keeps busy is out of reach.
    """
    threads = min(threading.active_count() - 1, _MOST_THREADS)
    all_in = threading.Barrier(max(threads, 1))

    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        with contextlib.suppress(threading.BrokenBarrierError):
            all_in.wait(_THREADS_SECONDS)  # so that each takes a thread of its own

    async with trio.open_nursery() as nursery:
        for _ in range(threads):
            nursery.start_soon(partial(trio.to_thread.run_sync, block, limiter=trio.CapacityLimiter(1)))
