"""One socket: a reader that never stops, a writer that pulls and owns the close.

The reader hands each frame to the dialect, which answers at once or refuses; nothing in it waits. So a ping is
always answered and a peer's close always noticed, whatever the writer is stuck in.

The writer sends what the outbox has, then what the dialect pulls from its sessions, and when the connection is
to end, says so. Nobody else sends on this socket, but for pongs and pings, which are whole frames in a lock.
A peer that takes no byte for `send_seconds` ends the connection as 4101: the guard keeps what was not sent,
so a client that reads again within `close_seconds` sees that frame to its end and the close code after it.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
import trio
import trio_websocket

from gateway_trio.core.jsonrpc import CLOSES, Close
from gateway_trio.core.message_frame import message_frame
from gateway_trio.few_tasks import FewTasks
from gateway_trio.keepalive import Keepalive
from gateway_trio.log import get_logger
from gateway_trio.outbox import Frame, Outbox
from gateway_trio.reader_nursery import ReaderNursery

if TYPE_CHECKING:
    from gateway_trio.dialect import Dialect
    from gateway_trio.gateway import Gateway
    from gateway_trio.guard import GuardedStream
    from gateway_trio.tokens import Identity, Principal

__all__ = ["Connection"]

log = get_logger("connection")

#: How long a connection may be nobody's.
AUTHENTICATE_SECONDS = 5.0
#: And how much it may send in that time: one message, and all of it.
UNKNOWN_MESSAGE_BYTES = 16 * 1024
UNKNOWN_BYTES = 64 * 1024

#: Frames for one write: of a connection that keeps up, and of one that is far behind (see `catch_up`).
_BATCH_FRAMES = 64
_CATCH_UP_FRAMES = 10
#: Close codes with which wsproto reports a frame that is none, or a text that is no UTF-8.
_BROKEN = frozenset({1002, 1007})
#: Requests of one connection that wait for something (a new session's row, a config file's check).
_TASKS = 32


class Connection:
    """One WebSocket connection of a principal. `nursery` is its own; cancelling that ends it without a word.

    `identity` is None for one that has not authenticated yet, `address` the remote one.
    """

    def __init__(
        self,
        gateway: Gateway,
        guard: GuardedStream,
        nursery: trio.Nursery,
        identity: Identity | None,
        address: str,
    ) -> None:
        self.id = "c" + secrets.token_hex(6)
        self.gateway = gateway
        self.nursery = nursery
        self.address = address
        self.identity = identity
        #: Of what comes; as it was when the connection began, for that is what its client is told.
        self.max_message_bytes = gateway.config.server.max_message_bytes
        self.outbox = Outbox()
        self.reader_nursery: Any = ReaderNursery(self)
        self.unread = False  #: the peer may not have read our last word, so its socket must not be closed at once
        self._guard = guard
        self._websocket: trio_websocket.WebSocketConnection
        self._dialect: Dialect
        self._wake = trio.Event()
        self._close: Close | None = None
        self._pulls_to_end = False
        self._closing = trio.CancelScope()
        self._reader_done = trio.Event()
        self._tasks = FewTasks(nursery, _TASKS)
        ping = partial(nursery.start_soon, self._ping)
        self._keepalive = Keepalive(ping, partial(self.close, CLOSES["keepalive"]))
        self._authenticated = trio.Event()
        if identity is None:
            guard.limit(UNKNOWN_BYTES, partial(self.close, CLOSES["too_big"]))

    @property
    def principal(self) -> Principal:
        """Whose it is. Nothing asks before that is known."""
        assert self.identity is not None  # noqa: S101 - the dialect lets nothing through before
        return self.identity.principal

    def authenticated(self, identity: Identity) -> None:
        """It is known from now on whose connection this is."""
        self.gateway.entrance.leave(self.identity)
        self.gateway.entrance.arrive(identity)
        self.identity = identity
        self._guard.limit(None)
        structlog.contextvars.bind_contextvars(principal=identity.principal.name)
        self._authenticated.set()

    async def _expect_authentication(self) -> None:
        """Bound the time that somebody unknown may take."""
        with trio.move_on_after(AUTHENTICATE_SECONDS):
            await self._authenticated.wait()
            return
        self.close(CLOSES["policy"])

    async def run(self, websocket: trio_websocket.WebSocketConnection, dialect: Dialect) -> None:
        """Serve the connection to its end. Cancelling ends it without a close frame."""
        self._websocket, self._dialect = websocket, dialect
        self._guard.close_with(self._broken_frames_answer)
        clean = False
        self.gateway.enter(self)
        try:
            await dialect.start()
            if self.identity is None:
                self.nursery.start_soon(self._expect_authentication)
            self.nursery.start_soon(self._read)
            clean = await self._serve()
        finally:
            self.gateway.connections.discard(self)
            # Something that was no WebSocket came, or too much: answered before all of it is read. Or the answer
            # to the peer's close was collected, and nobody came to send it.
            self.unread = (
                self.unread
                or self._guard.unsent
                or websocket.closed is None
                or websocket.closed.code in {*_BROKEN, CLOSES["too_big"].code}
            )
            dialect.detach()
            self._count(websocket.closed)
            left_by_itself = self._close is None and websocket.closed is not None
            if not left_by_itself:
                self.gateway.coordinator.timeline.socket_ended(clean=clean)

    def _count(self, closed: trio_websocket.CloseReason | None) -> None:
        """Count a connection that we closed, or that trio-websocket did for what came: too much, or no frame."""
        tally, code = self.gateway.coordinator.tally, None if closed is None else closed.code
        if self._close is not None:
            tally.closed(self._close)
        elif code == CLOSES["too_big"].code:
            tally.closed(CLOSES["too_big"])
        elif code in _BROKEN:
            tally.closed(None)

    async def _serve(self) -> bool:
        """Send until the end, and say goodbye; return whether the peer then closed too."""
        try:
            await self._write()
            return await self._say_goodbye()
        except trio_websocket.ConnectionClosed:
            self._guard.uncork()
        # The peer closes, and the reader is about to answer that (RFC 6455 section 5.5.1); or it is gone, and the
        # reader is about to find that too.
        with trio.move_on_after(self.gateway.config.drain.close_seconds):
            await self._reader_done.wait()
        return False

    # --- what others tell it ---

    def commands_changed(self) -> None:
        """Tell which commands there are now."""
        self._dialect.commands_changed()

    def poke(self) -> None:
        """There may be something to send."""
        self._wake.set()

    def send(self, *frames: Frame) -> None:
        """Put frames into the outbox. If they do not fit, the connection is closed as too slow."""
        if not self.outbox.put(*frames):
            self.close(CLOSES["slow"])
        self.poke()

    def announce(self, *, phase: bool = True) -> None:
        """The phase changed, or else how much runs: tell it before anything else."""
        self.outbox.notice(self._dialect.phase_notice(), phase=phase)
        self.poke()

    def close(self, close: Close, *, pull_to_end: bool = False) -> None:
        """End the connection with this code: at once, or when everything has been sent. The first one stands."""
        if self._close is None:
            self._close, self._pulls_to_end = close, pull_to_end
            self.poke()

    def spawn(self, function: Callable[[], Awaitable[None]]) -> bool:
        """Run a request that waits, as a task of this connection; False if too many wait already."""
        return self._tasks.start(function)

    def keep_alive(self, now: float) -> None:
        """Look whether the peer is still there; called for all connections by one service."""
        self._keepalive.look(now - self._guard.last_received)

    async def _ping(self) -> None:
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            await self._websocket.ping()

    def _broken_frames_answer(self) -> bytes:
        """Return the close frame for a peer that broke the protocol, b"" for any other end."""
        closed = self._websocket.closed
        if closed is None or closed.code not in _BROKEN:
            return b""
        return b"\x88\x02" + closed.code.to_bytes(2, "big")

    def reader_ended(self) -> None:
        """trio-websocket reads no more: the peer closed, or broke off, or sent what it could not take."""
        self._reader_done.set()
        self._closing.cancel()
        if self._close is None:
            self.nursery.cancel_scope.cancel()

    # --- reading ---

    async def _read(self) -> None:
        try:
            while True:
                message = await self._websocket.get_message()
                if self._close is not None and not self._pulls_to_end:
                    continue  # it is being shown out, and nothing is taken from it any more
                limit = self.max_message_bytes
                if self.identity is None:
                    limit = min(limit, UNKNOWN_MESSAGE_BYTES)
                if _longer(message, limit):
                    self.close(CLOSES["too_big"])
                    return
                self._dialect.received(message)
        except trio_websocket.ConnectionClosed:
            if self._close is None:
                self.nursery.cancel_scope.cancel()

    # --- writing ---

    async def _write(self) -> None:
        """Send until the connection is to end, and until nothing is left if it is to end that way."""
        behind = False
        while self._close is None or self._pulls_to_end:
            if behind:
                async with self.gateway.catch_up.turn():
                    frames, noticed, behind = self.outbox.batch(self._dialect, _CATCH_UP_FRAMES)
            else:
                frames, noticed, behind = self.outbox.batch(self._dialect, _BATCH_FRAMES)
            if frames:
                await self._send(frames)
                if noticed:
                    self.gateway.coordinator.noticed()
            elif self._close is not None and not self._dialect.fetching:
                return
            else:
                await self._wake.wait()
                self._wake = trio.Event()

    async def _send(self, frames: list[Frame]) -> None:
        """Send frames with one write; a peer that takes no byte for `send_seconds` is given up.

        Raises `trio_websocket.ConnectionClosed` where the socket is lost, as all sending by trio-websocket does.
        """
        if self._websocket.closed is not None:
            raise trio_websocket.ConnectionClosed(self._websocket.closed)
        self._guard.put(b"".join(map(message_frame, frames)))
        try:
            sent = self._guard.send_now() or await self._guard.flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise trio_websocket.ConnectionClosed(self._websocket.closed) from None
        if not sent:
            log.info("slow client", connection=self.id)
            self._close, self._pulls_to_end = CLOSES["slow"], False

    async def _say_goodbye(self) -> bool:
        """Send the last frame and the close frame; return whether the peer closed within `close_seconds`."""
        assert self._close is not None  # noqa: S101 - `_write` returned
        with trio.move_on_after(self.gateway.config.drain.close_seconds) as patience:
            if (frame := self._dialect.goodbye(self._close)) is not None:
                self._guard.cork()
                await self._websocket.send_message(frame)
                self._guard.uncork()
            with self._closing:
                closed = self._websocket.aclose(self._close.code, self._close.reason)
                self.gateway.coordinator.timeline.said_goodbye()
                await closed
        self.unread = self.unread or patience.cancelled_caught
        log.debug("closed", connection=self.id, code=self._close.code, clean=not self.unread)
        return not self.unread


def _longer(message: str | bytes, limit: int) -> bool:
    """Whether a message takes more bytes than that on the wire."""
    if isinstance(message, bytes):
        return len(message) > limit
    return len(message) * 4 > limit and len(message.encode()) > limit
