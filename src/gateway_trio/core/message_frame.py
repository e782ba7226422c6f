"""A message as the one frame that a server sends it in (RFC 6455, sections 5.2 and 5.6).

trio-websocket makes it too, with a lock and a checkpoint each; a writer that has many at once makes them here and
sends them with one write. All else of the protocol is trio-websocket's.
"""

from __future__ import annotations

__all__ = ["message_frame"]

_FIN_TEXT, _FIN_BINARY = 0x81, 0x82


def message_frame(message: str | bytes) -> bytes:
    """Return a final, unmasked frame. Raises UnicodeEncodeError for half a surrogate pair."""
    kind = _FIN_TEXT if isinstance(message, str) else _FIN_BINARY
    payload = message.encode() if isinstance(message, str) else message
    size = len(payload)
    if size < 126:  # noqa: PLR2004 - the three forms of a length
        return bytes((kind, size)) + payload
    if size < 1 << 16:
        return bytes((kind, 126)) + size.to_bytes(2, "big") + payload
    return bytes((kind, 127)) + size.to_bytes(8, "big") + payload
