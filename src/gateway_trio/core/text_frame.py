"""A text message as the one frame that a server sends it in (RFC 6455, sections 5.2 and 5.6).

trio-websocket makes it too, with a lock and a checkpoint each; a writer that has many at once makes them here and
sends them with one write. All else of the protocol is trio-websocket's.
"""

from __future__ import annotations

__all__ = ["text_frame"]

_FIN_TEXT = 0x81


def text_frame(text: str) -> bytes:
    """Return a final, unmasked text frame. Raises UnicodeEncodeError for half a surrogate pair."""
    payload = text.encode()
    size = len(payload)
    if size < 126:  # noqa: PLR2004 - the three forms of a length
        return bytes((_FIN_TEXT, size)) + payload
    if size < 1 << 16:
        return bytes((_FIN_TEXT, 126)) + size.to_bytes(2, "big") + payload
    return bytes((_FIN_TEXT, 127)) + size.to_bytes(8, "big") + payload
