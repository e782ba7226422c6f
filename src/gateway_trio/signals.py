"""The program's signals: what each does to the gateway, and that none is lost.

SIGTERM, SIGINT   first: drain. second: cancel turns now, little time for execs. third: out, at once.
SIGUSR1           drain for a restart, if what is installed and the config can be used
SIGHUP            read the config again, if it can be used

One that comes before the gateway stands ends the start, and one that comes after its end is the successor's, where
the process replaces itself: blocked signals stay pending over an exec (execve(2)).
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable

import trio

from gateway_trio import log
from gateway_trio.core.lifecycle import Reason
from gateway_trio.gateway import Gateway

__all__ = ["SIGNALS", "Signals"]

#: Signals that come within this time are one: a terminal and a supervisor may both send theirs.
_ONE_SIGNAL_SECONDS = 0.25

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

    async def hold(self) -> None:
        """Block signals, and leave those pending that came since the gateway closed. Not to be cancelled."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        # One that came just before is on its way to `receive`. Trio brings what other threads and handlers ask for
        # in its order, and runs whom it wakes in the same pass as this task: one pass later it has run.
        arrived = trio.Event()
        trio.lowlevel.current_trio_token().run_sync_soon(arrived.set, idempotent=True)
        await arrived.wait()
        await trio.lowlevel.checkpoint()
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
