"""Tells a supervisor how the gateway stands, by sd_notify(3); `core.supervision` decides what and when.

For the program only. A supervisor that cannot be reached, or does not read, hurts nobody: a datagram that it does
not take within `_SEND_SECONDS` is dropped, and the log says so once.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping

import trio

from gateway_trio.core.lifecycle import Action
from gateway_trio.core.phases import State
from gateway_trio.core.supervision import Told, news, watchdog_seconds
from gateway_trio.gateway import Gateway
from gateway_trio.log import get_logger

__all__ = ["Notifier", "Supervisor"]

log = get_logger("sd_notify")

#: For room in the supervisor's queue, which the loop waits for: much more often there is than not.
_SEND_SECONDS = 0.1


class Notifier:
    """Sends datagrams to the socket at `address`: a path, an abstract name behind `@`, or "" for nowhere."""

    def __init__(self, address: str) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._failed = False

    def send(self, text: str) -> None:
        """Send one datagram. Raises nothing."""
        if not self._address or not text:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_SECONDS)
                sender.sendto(text.encode(), self._address)
        except (OSError, ValueError) as fault:  # ValueError: a NUL in the path
            if not self._failed:
                log.warning("the supervisor could not be told", error=str(fault))
            self._failed = True


class Supervisor:
    """What the supervisor is told of one gateway.

    Args:
        environ: has `NOTIFY_SOCKET` and `WATCHDOG_USEC`, or does not, and then nothing is told.
        in_place: whether a restart replaces the process.
        beyond: seconds, from the end of a drain's budget until the process is gone for certain.

    """

    def __init__(self, environ: Mapping[str, str], *, in_place: bool, beyond: float) -> None:
        self._notifier = Notifier(environ.get("NOTIFY_SOCKET", ""))
        self._watchdog = watchdog_seconds(environ, os.getpid())
        self._in_place = in_place
        self._beyond = beyond
        self._told = Told()
        self._seen: State | None = None

    def attach(self, gateway: Gateway) -> None:
        """Say that the doors are open, and from now on what changes."""

        def look() -> None:
            coordinator = gateway.coordinator
            if coordinator.state is self._seen:  # one step may have both actions
                return
            self._seen = coordinator.state
            self._told, text = news(
                self._told,
                coordinator.state,
                in_place=self._in_place,
                turns=len(coordinator.turns) + len(coordinator.storing),
                execs=len(coordinator.execs),
                now=trio.current_time(),
                beyond=self._beyond,
                clock=time.monotonic_ns() // 1000,
            )
            self._notifier.send(text)

        for action in (Action.MOVE_DEADLINES, Action.ANNOUNCE):
            gateway.coordinator.on(action, look)
        look()

    async def keep_alive(self) -> None:
        """Say twice in `WATCHDOG_USEC` that the loop runs. Runs until cancelled; returns where nobody asks."""
        while self._watchdog is not None:
            self._notifier.send("WATCHDOG=1")
            await trio.sleep(self._watchdog / 2)
