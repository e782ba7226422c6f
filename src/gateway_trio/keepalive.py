"""Whether a peer is still there: one that is silent is pinged (RFC 6455, section 5.5.2), and then given up."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["KEEPALIVE_SECONDS", "Keepalive"]

#: A peer that was not heard for so long is pinged; if it is not heard for as long again, it is gone.
KEEPALIVE_SECONDS = 20.0


class Keepalive:
    """That of one connection. `ping` sends a ping, `gone` gives the peer up; neither may wait."""

    def __init__(self, ping: Callable[[], object], gone: Callable[[], object]) -> None:
        self._ping = ping
        self._gone = gone
        self._pinged = False

    def look(self, silent: float) -> None:
        """Do what is due, now that nothing has come for so many seconds. Called again and again."""
        if silent < KEEPALIVE_SECONDS:
            self._pinged = False
        elif not self._pinged:
            self._pinged = True
            self._ping()
        elif silent >= 2 * KEEPALIVE_SECONDS:
            self._gone()
