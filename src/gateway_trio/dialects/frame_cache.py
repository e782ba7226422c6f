"""Frames that were made for one client of a session and are what the others get too."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from gateway_trio.core.cursor import Lost, Piece
from gateway_trio.core.events import Entry
from gateway_trio.dialects.acp_frames import frames_of
from gateway_trio.sessions import Session

__all__ = ["FrameCache"]

#: Characters that are kept: what some fifty clients stand apart when they load one session.
_CHARS = 4 * 1024 * 1024


class FrameCache:
    """Makes `session/update` frames, and keeps the newest `most` characters of them for the next reader.

    A message that grows is cut where it stood when its first reader was sent it, mostly at the same place for all.
    """

    def __init__(self, most: int = _CHARS) -> None:
        self._frames: OrderedDict[tuple[Entry, int, int], Sequence[str]] = OrderedDict()
        self._chars = 0
        self._most = most

    def frames_of(self, session: Session, piece: Piece | Lost) -> Sequence[str]:
        """Return the frames of a piece, as `acp_frames.frames_of` does."""
        if isinstance(piece, Lost) or len(session.readers) <= 1:
            return frames_of(session.id, piece)
        key = (piece.entry, piece.at, len(piece.text))
        frames = self._frames.get(key)
        if frames is None:
            frames = self._frames[key] = frames_of(session.id, piece)
            self._chars += _size(frames)
            while self._chars > self._most:
                self._chars -= _size(self._frames.popitem(last=False)[1])
        return frames


def _size(frames: Sequence[str]) -> int:
    return sum(map(len, frames))
