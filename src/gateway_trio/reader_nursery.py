"""Where trio-websocket's reader runs: what it raises must end one connection, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from gateway_trio.log import get_logger

if TYPE_CHECKING:
    from gateway_trio.connection import Connection

__all__ = ["ReaderNursery"]

log = get_logger("connection")


class ReaderNursery:
    """Given to trio-websocket as the nursery in which it starts its reader.

    That raises for a ping that comes after our close frame, for one, and leaves everybody waiting.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def start_soon(self, function: Callable[[], Awaitable[None]]) -> None:
        self._connection.nursery.start_soon(self._run, function)

    async def _run(self, function: Callable[[], Awaitable[None]]) -> None:
        try:
            await function()
        except* Exception as group:  # noqa: BLE001 - a stranger's bytes
            log.debug("reader ended", connection=self._connection.id, error=repr(group.exceptions[0]))
            self._connection.unread = True
        finally:
            self._connection.reader_ended()
