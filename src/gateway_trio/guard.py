"""The stream between a WebSocket connection and its socket.

trio-websocket takes any `trio.abc.Stream`. This one adds what it lacks:

* After `cork` sends are only collected, until `flush` or `uncork`, so that many frames cost one write.
* A send that was cancelled keeps the rest of its bytes, and the next send goes on there. Without it a cancelled
  `send_message` leaves a cut frame on the wire, and the next frame, even a close frame, lands inside it.
* A peer that takes no byte for `stall_seconds` ends the sending, however slowly it reads otherwise.
* A close frame goes out where trio-websocket forgets it: behind a frame that breaks the protocol (RFC 6455 section
  7.1.7).
* `aclose`, by which trio-websocket says that it is done, only closes our half. The socket is closed by `end`,
  which first reads and throws away what still comes: closing a socket with unread bytes in it sends a reset, and
  the peer would lose the close frame that it has not read yet (RFC 1122 section 4.2.2.13).
* It knows when the peer was last heard, for the keepalive.
* It can bound what is received; what comes beyond that is read and thrown away, so that a goodbye still arrives.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable

import trio

__all__ = ["GuardedStream"]

_RECEIVE_BYTES = 65536
_CLOSE = b"\x88"  # the first byte of a close frame


class GuardedStream(trio.abc.Stream):
    """A stream that survives cancelled sends.

    `prefix` are bytes that count as received first; `stall_seconds` is how long the peer may take no byte, `inf`
    for ever.
    """

    def __init__(self, stream: trio.abc.Stream, prefix: bytes = b"", stall_seconds: float = math.inf) -> None:
        self.last_received = trio.current_time()
        self._stream = stream
        self._socket = stream.socket if isinstance(stream, trio.SocketStream) else None
        self._stall_seconds = stall_seconds
        self._prefix = prefix
        self._unsent = bytearray()
        self._corked = False
        self._sending = trio.StrictFIFOLock()
        self._done = False
        self._half_closed = False
        self._close_sent = False
        self._last_frame: Callable[[], bytes] = bytes
        self._allowance = math.inf
        self._over: Callable[[], None] = lambda: None

    def limit(self, size: int | None, over: Callable[[], None] = lambda: None) -> None:
        """Pass on at most `size` more bytes, None for no limit; `over` is called when more than that came."""
        self._allowance = math.inf if size is None else size
        self._over = over

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive as `trio.abc.ReceiveStream` says, at most 64 KiB. Cancelling loses nothing."""
        if self._prefix:
            await trio.lowlevel.checkpoint()
            size = max_bytes or _RECEIVE_BYTES
            data, self._prefix = self._prefix[:size], self._prefix[size:]
            return data
        if self._done:
            raise trio.ClosedResourceError
        while True:
            data = bytes(await self._stream.receive_some(max_bytes or _RECEIVE_BYTES))
            self.last_received = trio.current_time()
            self._allowance -= len(data)
            if self._allowance >= 0 or not data:
                return data
            self._over()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send what an earlier send left, then `data`. Cancelling keeps what was not sent for the next send.

        While corked this only collects. Raises `trio.BrokenResourceError` where the peer takes nothing more.
        """
        if self._done:
            raise trio.ClosedResourceError
        self._unsent += data
        self._close_sent = self._close_sent or bytes(data[:1]) == _CLOSE
        if self._corked:
            await trio.lowlevel.checkpoint()
        elif not await self.flush():
            raise trio.BrokenResourceError(f"the peer took no byte for {self._stall_seconds} s")

    @property
    def unsent(self) -> bool:
        """Whether there is something that was collected, or cut, and has not gone out."""
        return bool(self._unsent)

    def put(self, frames: bytes) -> None:
        """Add whole frames to what the next send sends, but nothing behind a close frame (RFC 6455, 5.5.1)."""
        if not self._close_sent:
            self._unsent += frames

    def close_with(self, last_frame: Callable[[], bytes]) -> None:
        """Ask for a last frame when our half is closed and no close frame was sent; b"" for none."""
        self._last_frame = last_frame

    def cork(self) -> None:
        """Only collect what is sent from now on."""
        self._corked = True

    def uncork(self) -> None:
        """Let the next send go out, with what was collected before it."""
        self._corked = False

    def send_now(self) -> bool:
        """Send what the socket takes at once; whether that was all. What is left, and what is wrong, is `flush`'s.

        Nearly always the socket takes everything. Then this costs neither a lock nor a pass of the scheduler.
        """
        if self._socket is None or self._sending.locked():
            return False
        self.uncork()
        with contextlib.suppress(OSError):  # it would block, or it broke: `flush` meets that again
            sent = os.write(self._socket.fileno(), self._unsent)
            del self._unsent[:sent]
        return not self._unsent

    async def flush(self) -> bool:
        """Send what was collected; False if the peer took no byte for too long. Cancelling loses nothing."""
        self.uncork()
        async with self._sending:
            while self._unsent:
                sent = 0
                with trio.move_on_after(self._stall_seconds):
                    sent = await self._send_some(bytes(self._unsent[:_RECEIVE_BYTES]))
                if not sent:
                    return False
                del self._unsent[:sent]
        return True

    async def _send_some(self, data: bytes) -> int:
        if self._socket is None:
            await self._stream.send_all(data)
            return len(data)
        try:
            return await self._socket.send(data)
        except OSError as fault:
            raise trio.BrokenResourceError(f"the socket broke: {fault}") from fault

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room in the socket's buffer."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close our half only, behind what a cancelled send left; `end` closes the socket.

        Cancelling leaves the rest of it to `end`.
        """
        if not self._done and not self._close_sent:
            self._unsent += self._last_frame()
        self._done = True
        try:
            if not self._half_closed and await self.flush():
                if isinstance(self._stream, trio.abc.HalfCloseableStream):
                    await self._stream.send_eof()
                self._half_closed = True
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            return
        await trio.lowlevel.checkpoint()

    async def end(self, linger_seconds: float) -> None:
        """Close the socket, after reading to the peer's end for at most `linger_seconds`.

        Cancelling closes it at once.
        """
        try:
            with trio.move_on_after(linger_seconds):
                await self.aclose()
                while await self._stream.receive_some(_RECEIVE_BYTES):
                    pass
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            pass
        finally:
            await trio.aclose_forcefully(self._stream)
