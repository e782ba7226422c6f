"""The request head: read with h11, checked by us, and turned into a handshake that wsproto cannot trip over.

wsproto decodes several headers in ways that raise (`Host` as IDNA, others as ASCII), and a raise there ends a
bare trio-websocket server. So it never sees what a client sent: once a request has passed the checks of RFC
6455 section 4.2.1, wsproto gets a head of our own with nothing of the client's in it but the checked key.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping

import h11
import trio
from attrs import frozen

from gateway_trio.http import Answer, refuse

__all__ = ["HEAD_BYTES", "BadRequest", "BadToken", "Head", "read_head", "upgrade", "wants_upgrade"]

#: A request head longer than this is refused.
HEAD_BYTES = 16 * 1024

#: A target in absolute form (RFC 9112 section 3.2.2): scheme, authority, and the rest.
_ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)")


class BadRequest(Exception):
    """The request is refused; `answer` is what to send."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body.decode())
        self.answer = answer


class BadToken(BadRequest):
    """The same for a head whose `Authorization` can hold no token: it does not fit, or is not ASCII."""


@frozen
class Head:
    """A request head. Header names are lower case; one that came twice has its values joined by a comma.

    `host` in it is whom the client asked for: the authority of a target in absolute form, else the `Host` header.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    version: str  #: of HTTP
    rest: bytes  #: what came behind the head


async def read_head(stream: trio.abc.ReceiveStream) -> Head | None:
    """Read one request head; None if the client went away without one.

    Raises `BadRequest` for what is no HTTP/1.1. Cancelling leaves the connection useless.
    """
    # h11 bounds only what is not complete. So it never has more than a head may have, and so many bytes that are
    # none yet are too many.
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES - 1)
    room = HEAD_BYTES
    try:
        while (event := connection.next_event()) is h11.NEED_DATA:
            data = bytes(await stream.receive_some(min(4096, room)))
            room -= len(data)
            connection.receive_data(data)
    except h11.RemoteProtocolError as fault:
        status = 431 if fault.error_status_hint == 431 else 400  # noqa: PLR2004 - RFC 6585
        kind = BadToken if status == 431 and _in_authorization(connection) else BadRequest  # noqa: PLR2004
        raise kind(refuse(status, f"this is no request: {fault}")) from None
    except trio.BrokenResourceError:
        return None
    if not isinstance(event, h11.Request):
        return None
    return _head(event, connection.trailing_data[0])


def _head(event: h11.Request, rest: bytes) -> Head:
    """Return what h11 read, which has refused two `Host` headers already.

    A target in absolute form is taken, and its authority stands for `Host`, whatever that says (RFC 9112 section
    3.2.2): so it is judged as that is. A scheme that is not ours is refused: what asks for `https` must have come
    over TLS (RFC 9110 section 4.2.2), and a proxy that has it asks us in origin form.
    """
    headers: dict[str, str] = {}
    kind = BadRequest
    try:
        for name, value in event.headers:
            key, kind = name.decode("ascii"), BadToken if name == b"authorization" else BadRequest
            text = value.decode("ascii")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text
        kind = BadRequest
        target = event.target.decode("ascii")
    except UnicodeDecodeError:
        raise kind(refuse(400, "a header holds a character that is not ASCII")) from None
    if (absolute := _ABSOLUTE.fullmatch(target)) is not None:
        scheme, headers["host"], target = absolute.groups()
        if scheme.lower() != "http":
            raise BadRequest(refuse(400, "this is plain HTTP; no other scheme is answered for"))
    path, _, query = target.partition("?")
    return Head(event.method.decode("ascii"), path, query, headers, event.http_version.decode(), rest)


def _in_authorization(connection: h11.Connection) -> bool:
    """Whether a head that was too long had come to that header, or into the middle of it."""
    unfinished = connection.trailing_data[0].rpartition(b"\n")[2]
    return unfinished[:14].lower() == b"authorization:"


def wants_upgrade(head: Head) -> bool:
    """Whether the client asks for a WebSocket."""
    return "websocket" in _tokens(head, "upgrade") and "upgrade" in _tokens(head, "connection")


def upgrade(head: Head) -> bytes:
    """Return the request head for wsproto.

    Raises `BadRequest` as RFC 6455 section 4.2.1 says, and for a client that does not wait for the answer, as
    section 4.1 says it must: wsproto would throw away what came with the head.
    """
    if head.rest:
        raise BadRequest(refuse(400, "a client waits for the answer before it sends more"))
    if head.version != "1.1":
        raise BadRequest(refuse(505, "HTTP/1.1 only"))
    if head.headers.get("sec-websocket-version", "") != "13":
        raise BadRequest(refuse(426, "WebSocket version 13 only", ("Sec-WebSocket-Version", "13")))
    key = head.headers.get("sec-websocket-key", "")
    try:
        nonce = base64.b64decode(key, validate=True)
    except binascii.Error:
        nonce = b""
    if len(nonce) != 16:  # noqa: PLR2004 - RFC 6455 section 4.1
        raise BadRequest(refuse(400, "Sec-WebSocket-Key is not 16 bytes in base64"))
    return (
        b"GET / HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key.encode() + b"\r\n\r\n"
    )


def _tokens(head: Head, name: str) -> set[str]:
    return {token.strip().lower() for token in head.headers.get(name, "").split(",")}
