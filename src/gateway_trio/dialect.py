"""What a connection and the way it is spoken on want of each other; `dialects/` has the ways that there are."""

from __future__ import annotations

from typing import Protocol

from gateway_trio.core.jsonrpc import Close
from gateway_trio.outbox import Source

__all__ = ["Dialect"]


class Dialect(Source, Protocol):
    """What is spoken on a connection. All but `start` are synchronous."""

    async def start(self) -> None:
        """Do what must be done before the first frame is read."""

    def received(self, message: str | bytes) -> None:
        """Take a frame, of text or binary: answer it, start what it asks for, refuse it, or leave it alone."""

    def phase_notice(self) -> str | None:
        """Return what to tell about the phase as it is now, None for nothing."""

    def goodbye(self, close: Close) -> str | None:
        """Return the last frame before this close, None for none."""

    def commands_changed(self) -> None:
        """There are other quick commands now: tell it, if that is told."""

    def detach(self) -> None:
        """The connection has ended: let go of the sessions."""
