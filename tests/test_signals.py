"""Signals that come before the gateway stands; the rest is tested with real processes."""

from __future__ import annotations

import signal

import pytest
import trio

from gateway_trio.signals import Signals


@pytest.mark.parametrize(
    ("numbers", "early"),
    [
        ([signal.SIGTERM], signal.SIGTERM),
        ([signal.SIGUSR1], signal.SIGUSR1),
        ([signal.SIGUSR1, signal.SIGTERM], signal.SIGTERM),
        ([signal.SIGINT, signal.SIGUSR1, signal.SIGUSR1], signal.SIGINT),
        ([signal.SIGHUP], None),
    ],
)
async def test_of_a_restart_and_a_shutdown_it_is_the_shutdown(numbers, early):
    async def come():
        for number in numbers:
            yield number

    starting = trio.CancelScope()
    signals = Signals(starting, pytest.fail)
    with trio.fail_after(60):
        await signals.receive(come())
    assert signals.early == early
    assert starting.cancel_called is (early is not None)
