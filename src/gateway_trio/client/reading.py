"""Reads a session from its beginning to where it stands: everything, each once, in bounded memory.

What is told of a session while one is attached to it waits for nobody, and is dropped where nobody takes it. Here
it is the other way round: where updates wait to be taken nothing more is read from the connection, so that the
gateway waits in its turn. A connection that is lost meanwhile is brought back, and reading goes on where it was.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import trio

from gateway_trio.client.errors import ClientError, Lost, refused
from gateway_trio.client.wire import Answer
from gateway_trio.core.acp import OURS
from gateway_trio.core.mirror import Mirror
from gateway_trio.core.updates import Commands, Notice, Text, Update, Usage

if TYPE_CHECKING:
    from gateway_trio.client.switchboard import Switchboard

__all__ = ["Reading"]

#: So many updates, or characters of text, wait to be taken; beyond it the connection is not read.
MOST_UPDATES = 1000
MOST_CHARS = 1024 * 1024


class Reading:
    """What `Client.read` gives: iterates over all that the session holds, up to where it stood when it was asked.

    `last` and `epoch` are the gateway's, of the log that was read; None before the end. What it does not keep any
    more is a `Gap`. Raises `Refused`, `unknown_session` for one, and what the connection is over with. Cancelling
    loses nothing.
    """

    def __init__(self, board: Switchboard, id_: str) -> None:
        self.id = id_
        self.last: int | None = None
        self.epoch: str | None = None
        self._board = board
        self._mirror = Mirror()
        self._waiting: deque[Update] = deque()
        self._chars = 0
        self._asked = False
        self._over = False
        self._error: ClientError | None = None
        self._news = trio.Event()
        self._room = trio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        await trio.lowlevel.checkpoint()
        while not self._waiting:
            if self._error is not None:
                raise copy.copy(self._error)
            if self._over:
                raise StopAsyncIteration
            if self._asked:
                self._news = trio.Event()
                await self._news.wait()
            else:
                await self._ask()
        update = self._waiting.popleft()
        self._chars -= _size(update)
        self._room.set()
        return update

    async def _ask(self) -> None:
        """Load the session behind what there is of it. Raises what the connection is over with."""
        wire = await self._board.connected()
        self._mirror.resume()
        params: dict[str, Any] = {"sessionId": self.id, "cwd": "/", "mcpServers": []}
        if self._mirror.after:
            params["_meta"] = {OURS: {"after": self._mirror.after}}
        wire.ask("session/load", params, self._answered)
        self._asked = True

    def _answered(self, answer: Answer) -> None:
        if isinstance(answer, ClientError):
            self._asked = False
            self._error = None if type(answer) is Lost else answer  # a loss is no end: it is asked again
        elif answer.error is not None:
            self._error = refused(answer.error)
        else:
            self._take_result(answer.result if isinstance(answer.result, dict) else {})
        self._news.set()

    def _take_result(self, result: Mapping[str, Any]) -> None:
        meta = result.get("_meta")
        told = meta.get(OURS) if isinstance(meta, dict) else None
        told = told if isinstance(told, dict) else {}
        self.last, self.epoch = told.get("last"), told.get("epoch")
        self._over = True

    # --- for the connection ---

    @property
    def _full(self) -> bool:
        return len(self._waiting) >= MOST_UPDATES or self._chars >= MOST_CHARS

    async def ready(self) -> None:
        """Return once there is room for an update."""
        while self._full and not self._over:
            self._room = trio.Event()
            await self._room.wait()

    def update(self, data: Mapping[str, Any]) -> None:
        """Take the `update` of a `session/update`; what comes behind the answer is none of this."""
        if self._over:
            return
        for update in self._mirror.apply(data):
            if not isinstance(update, Commands | Usage | Notice):  # they are no events
                self._waiting.append(update)
                self._chars += _size(update)
        self._news.set()

    def leave(self) -> None:
        """Nobody reads any more."""
        self._over = True
        self._room.set()


def _size(update: Update) -> int:
    return len(update.text) if isinstance(update, Text) else 0
