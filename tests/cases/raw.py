"""A WebSocket client on a bare socket, that does what a good one never would."""

from __future__ import annotations

import base64
import os
import socket
import struct

PATIENCE = 60.0

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def request_head(port: int, path: str = "/acp", *, leave_out=(), **headers: str | bytes) -> bytes:
    """Return the head of a WebSocket request; `headers`, with `_` for `-`, replace or add."""
    made: dict[str, str | bytes] = {
        "Host": f"127.0.0.1:{port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    made |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"GET {path} HTTP/1.1".encode()]
    for name, value in made.items():
        if name not in leave_out:
            lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
    return b"\r\n".join(lines) + b"\r\n\r\n"


class Raw:
    """A socket to the gateway. With a `path` it is a WebSocket once it is made."""

    def __init__(self, port: int, path: str | None = None, *, receive_buffer: int | None = None):
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", port))
        self._bytes = b""
        if path is not None:
            self.send(request_head(port, path))
            assert self.head().startswith(b"HTTP/1.1 101 ")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reset(self) -> None:
        """Break off without a word, as a cable does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def hang_up(self) -> None:
        self.socket.close()

    # --- what comes ---

    def head(self) -> bytes:
        """Read to the end of a response's head, or of what there is."""
        while b"\r\n\r\n" not in self._bytes:
            if not self._more():
                head, self._bytes = self._bytes, b""
                return head
        head, _, self._bytes = self._bytes.partition(b"\r\n\r\n")
        return head

    def status(self) -> int | None:
        """Return the status code of the response; None if there was none."""
        head = self.head()
        return int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.1 ") else None

    def frame(self) -> tuple[int, bytes] | None:
        """Return opcode and payload of the next frame; None at the end of the stream."""
        head = self._exactly(2)
        if head is None:
            return None
        assert head[0] & 0x80, "the gateway does not fragment"
        assert not head[1] & 0x80, "servers do not mask"
        length = head[1] & 0x7F
        if length == 126:
            length = struct.unpack("!H", self._exactly(2))[0]
        elif length == 127:
            length = struct.unpack("!Q", self._exactly(8))[0]
        payload = self._exactly(length)
        return None if payload is None else (head[0] & 0x0F, payload)

    def until(self, opcode: int) -> bytes:
        """Return the payload of the next frame of this kind."""
        while (frame := self.frame()) is not None:
            if frame[0] == opcode:
                return frame[1]
        raise AssertionError(f"the stream ended without a frame of opcode {opcode}")

    def close_code(self) -> int | None:
        """Read to the end; return the code of the close frame, None if there was none."""
        code = None
        while (frame := self.frame()) is not None:
            if frame[0] == CLOSE:
                code = struct.unpack("!H", frame[1][:2])[0]
        return code

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self._bytes += data
        return bool(data)

    def _exactly(self, size: int) -> bytes | None:
        while len(self._bytes) < size:
            if not self._more():
                return None
        data, self._bytes = self._bytes[:size], self._bytes[size:]
        return data

    # --- what goes ---

    def send_frame(
        self, opcode: int, payload: bytes = b"", *, final=True, masked=True, reserved=0, length: int | None = None
    ) -> None:
        self.send(frame(opcode, payload, final=final, masked=masked, reserved=reserved, length=length))


def frame(
    opcode: int, payload: bytes = b"", *, final=True, masked=True, reserved=0, length: int | None = None
) -> bytes:
    """Return a frame; `length` is what its head says, whatever the payload."""
    size = len(payload) if length is None else length
    first = (0x80 if final else 0) | reserved << 4 | opcode
    mask_bit = 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", first, mask_bit | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, mask_bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask_bit | 127, size)
    if not masked:
        return head + payload
    key = os.urandom(4)
    repeated = int.from_bytes(key * (len(payload) // 4 + 1), "big") >> 8 * (4 - len(payload) % 4)
    whole = int.from_bytes(payload, "big") ^ repeated
    return head + key + whole.to_bytes(len(payload), "big")


def close(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, struct.pack("!H", code) + reason)
