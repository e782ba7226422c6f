"""One WebSocket to a gateway: trio-websocket's client, with its traps kept in here.

Its reader may raise (for a ping behind a close frame, for one), and it leaves everybody waiting then: here that
is an end of the link like any other. It has no limits on opening and closing: here both have one. A send that
was cut leaves half a frame: such a link sends nothing more, not even a close frame.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio
import trio_websocket

from gateway_trio.client.address import Address
from gateway_trio.client.errors import ClientError, Lost, Unauthorized, Unreachable

__all__ = ["CLOSE_SECONDS", "Link"]

#: How long the gateway may take to answer our close frame.
CLOSE_SECONDS = 1.0
#: Characters of a frame; the gateway sends at most 256 KiB.
_FRAME_CHARS = 1024 * 1024
#: Of a refusal's body, in bytes, in the error.
_BODY_BYTES = 300
_ABNORMAL = 1006  # RFC 6455, section 7.1.5: there was no close frame


class _ReaderNursery:
    """Where trio-websocket starts its reader: what that raises is kept, and its end is told.

    The reader takes in the gateway's answer to our close frame, so it outlives a cancel from outside: `stop` ends
    it, which `Link.open`, where it fails, and `Link.close` do, each in bounded time.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.fault: BaseException | None = None
        self.ended = trio.Event()
        self.opening = trio.CancelScope()
        self._running = trio.CancelScope(shield=True)

    def stop(self) -> None:
        self._running.cancel()

    def start_soon(self, function: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._run, function)

    async def _run(self, function: Callable[[], Awaitable[None]]) -> None:
        try:
            with self._running:
                await function()
        except* Exception as group:  # noqa: BLE001 - whatever it is, the link has ended
            self.fault = group.exceptions[0]
        finally:
            self.ended.set()
            self.opening.cancel()


class Link:
    """An open WebSocket. One task receives, one sends. `close_code` is None until it has one."""

    def __init__(
        self, websocket: trio_websocket.WebSocketConnection, stream: trio.abc.Stream, reader: _ReaderNursery
    ) -> None:
        self._websocket = websocket
        self._stream = stream
        self._reader = reader
        self._whole = True

    @classmethod
    async def open(
        cls,
        nursery: trio.Nursery,
        stream: trio.abc.Stream,
        address: Address,
        headers: Sequence[tuple[bytes, bytes]],
    ) -> Link:
        """Do the handshake on a stream, which is the link's from here on.

        Args:
            nursery: where the reader runs, until `close`.
            stream: a connected stream.
            address: what `Host` and the request line say.
            headers: further headers.

        Raises `Unreachable` or `Unauthorized`; then, and when it is cancelled, the stream is closed.

        """
        reader = _ReaderNursery(nursery)
        websocket = None
        try:
            with reader.opening:
                any_stream: Any = stream
                any_nursery: Any = reader
                websocket = await trio_websocket.wrap_client_stream(
                    any_nursery, any_stream, address.netloc, address.path,
                    extra_headers=list(headers), max_message_size=_FRAME_CHARS,
                )  # fmt: skip
        finally:
            if websocket is None:
                reader.stop()
                await trio.aclose_forcefully(stream)
        if websocket is None:
            raise _refusal(reader.fault)
        return cls(websocket, stream, reader)

    async def send(self, text: str) -> None:
        """Send a frame. Raises `Lost`. When it is cancelled the link is of no more use."""
        whole, self._whole = self._whole, False
        try:
            await self._websocket.send_message(text)
        except trio_websocket.ConnectionClosed:
            raise self.lost() from None
        self._whole = whole

    async def receive(self) -> str:
        """Return the next text frame; binary ones are passed over. Raises `Lost` at the end."""
        try:
            while not isinstance(message := await self._websocket.get_message(), str):
                pass
        except trio_websocket.ConnectionClosed:
            raise self.lost() from None
        return message

    async def ping(self) -> None:
        """Return once the gateway has answered a ping. Raises `Lost`; waits forever where nobody is there."""
        try:
            await self._websocket.ping()
        except trio_websocket.ConnectionClosed:
            raise self.lost() from None

    async def close(self) -> None:
        """Say goodbye with 1000, for at most `CLOSE_SECONDS` whoever is cancelled, and close the stream."""
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            if self._whole and not self._reader.ended.is_set():
                await self._websocket.aclose()
        self._reader.stop()
        await trio.aclose_forcefully(self._stream)

    def lost(self) -> Lost:
        """Return how it ended, as what is to be raised."""
        closed = self._websocket.closed
        if closed is None or closed.code == _ABNORMAL:
            return Lost("the connection broke")
        reason = f": {closed.reason}" if closed.reason else ""
        return Lost(f"the gateway closed the connection with {closed.code}{reason}", code=int(closed.code))


def _refusal(fault: BaseException | None) -> ClientError:
    """Return what to raise where the handshake came to nothing."""
    if not isinstance(fault, trio_websocket.ConnectionRejected):
        return Unreachable("the connection broke in the handshake" if fault is None else f"no WebSocket: {fault}")
    status, body = fault.status_code, (fault.body or b"")[:_BODY_BYTES].decode("utf-8", "replace").strip()
    message = f"the gateway answered with HTTP {status}" + (f": {body}" if body else "")
    after = dict(fault.headers).get(b"retry-after", b"").decode("ascii", "replace")
    after_ms = int(after) * 1000 if after.isdecimal() else None
    if status == 401:  # noqa: PLR2004 - the statuses are those of docs/protocol.md
        return Unauthorized(message)
    return Unreachable(message, status=status, retryable=status in (429, 502, 503, 504), retry_after_ms=after_ms)
