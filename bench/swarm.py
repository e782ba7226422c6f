"""Many WebSocket clients in one thread: raw sockets and a selector, so that they cost the machine little."""

from __future__ import annotations

import json
import selectors
import socket
import struct
import time
from collections.abc import Callable

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
TEXT, CLOSE, PING = 1, 8, 9


def frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame, masked with zeros (RFC 6455 section 5.3 only asks for a mask)."""
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, 0x80 | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, 0x80 | 126)) + struct.pack("!H", size)
    else:
        head = bytes((0x80 | opcode, 0x80 | 127)) + struct.pack("!Q", size)
    return head + b"\0\0\0\0" + payload


class Client:
    """One socket; what it was sent and when."""

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.sendall(HANDSHAKE.format(path=path).encode())
        self.buffer = bytearray()
        while b"\r\n\r\n" not in self.buffer:
            got = self.socket.recv(65536)
            assert got, "the handshake was refused"
            self.buffer += got
        assert b" 101 " in self.buffer.split(b"\r\n", 1)[0], bytes(self.buffer)
        del self.buffer[: self.buffer.index(b"\r\n\r\n") + 4]
        self.code: int | None = None
        self.noticed_at: float | None = None
        self.closed_at: float | None = None
        self.results: dict[int, dict] = {}
        self.ended_at: float | None = None  #: when the answer to its prompt came

    def call(self, id_: int, method: str, params: dict) -> None:
        self.socket.sendall(
            frame(TEXT, json.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params}).encode())
        )

    def frames(self) -> list[tuple[int, bytes]]:
        """Take the whole frames out of the buffer."""
        out = []
        buffer = self.buffer
        while len(buffer) >= 2:
            size, at = buffer[1] & 0x7F, 2
            if size == 126:
                if len(buffer) < 4:
                    break
                size, at = struct.unpack_from("!H", buffer, 2)[0], 4
            elif size == 127:
                if len(buffer) < 10:
                    break
                size, at = struct.unpack_from("!Q", buffer, 2)[0], 10
            if len(buffer) < at + size:
                break
            out.append((buffer[0] & 0x0F, bytes(buffer[at : at + size])))
            del buffer[: at + size]
        return out


class Swarm:
    """Drives its clients; `pump` until a condition holds."""

    def __init__(self) -> None:
        self.clients: list[Client] = []
        self.open = 0
        self._selector = selectors.DefaultSelector()

    def add(self, client: Client) -> None:
        client.socket.setblocking(False)
        self.clients.append(client)
        self.open += 1
        self._selector.register(client.socket, selectors.EVENT_READ, client)

    def pump(self, until: Callable[[], bool], seconds: float) -> bool:
        """Read whatever comes until the condition holds; False if it did not within `seconds`."""
        end = time.monotonic() + seconds
        while not until():
            left = end - time.monotonic()
            if left <= 0:
                return False
            for key, _ in self._selector.select(min(left, 0.05)):
                self._read(key.data)
        return True

    def _read(self, client: Client) -> None:
        try:
            data = client.socket.recv(262144)
        except (BlockingIOError, ConnectionError):
            data = b""
        now = time.monotonic()
        if not data:
            self._selector.unregister(client.socket)
            client.socket.close()
            client.closed_at = now
            self.open -= 1
            return
        client.buffer += data
        for opcode, payload in client.frames():
            self._take(client, opcode, payload, now)

    def _take(self, client: Client, opcode: int, payload: bytes, now: float) -> None:
        if opcode == CLOSE:
            client.code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
            client.socket.sendall(frame(CLOSE, payload[:2]))
        elif opcode == PING:
            client.socket.sendall(frame(10, payload))
        elif client.noticed_at is None and b'"draining"' in payload and b"_gateway-trio/phase" in payload:
            client.noticed_at = now
        elif payload.startswith(b'{"jsonrpc":"2.0","id":'):
            message = json.loads(payload)
            client.results[message["id"]] = message
            if message["id"] == 3:
                client.ended_at = now
