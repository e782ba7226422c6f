"""What waits to be sent to one connection and belongs to no session's log: responses and notices."""

from __future__ import annotations

from collections import deque
from typing import Protocol

__all__ = ["OUTBOX_BYTES", "OUTBOX_FRAMES", "Frame", "Outbox", "Source"]

#: A message to send: text, or bytes for a binary one.
Frame = str | bytes

OUTBOX_FRAMES = 1024
OUTBOX_BYTES = 1024 * 1024

#: Characters that are collected for one write, give or take a frame.
_BATCH_CHARS = 64 * 1024


class Source(Protocol):
    """Where frames are pulled from, behind those of the outbox: a dialect."""

    def pull(self) -> Frame | None:
        """Return the next frame, None if there is nothing now."""

    @property
    def fetching(self) -> bool:
        """Whether there is more to pull once the store has answered."""


class Outbox:
    """A bounded queue of frames, and a place for the newest notice of the phase, which goes first.

    Policy when full: `put` says so, and the connection is closed as too slow (4101).
    """

    def __init__(self) -> None:
        self._frames: deque[Frame] = deque()
        self._bytes = 0
        self._notice: str | None = None
        self._of_phase = False

    def put(self, *frames: Frame) -> bool:
        """Add frames; False if they do not fit any more. One that is alone always fits."""
        for frame in frames:
            self._frames.append(frame)
            self._bytes += len(frame)
        fits = len(self._frames) <= OUTBOX_FRAMES and self._bytes <= OUTBOX_BYTES
        return fits or len(self._frames) == 1

    def notice(self, frame: str | None, *, phase: bool = True) -> None:
        """Replace the notice that waits; None leaves it. `phase` is False where only a count is new."""
        if frame is not None:
            self._notice, self._of_phase = frame, self._of_phase or phase

    def take(self) -> tuple[Frame | None, bool]:
        """Return the next frame, or None, and whether it tells of a change of the phase."""
        if self._notice is not None:
            notice, of_phase = self._notice, self._of_phase
            self._notice, self._of_phase = None, False
            return notice, of_phase
        if not self._frames:
            return None, False
        frame = self._frames.popleft()
        self._bytes -= len(frame)
        return frame, False

    def batch(self, source: Source, most: int) -> tuple[list[Frame], bool, bool]:
        """Return what goes with one write: what waits here, then what the source has.

        At most so many frames, and about `_BATCH_CHARS`. With them: whether they tell of a change of the phase,
        and whether there may be more.
        """
        frames: list[Frame] = []
        size, noticed = 0, False
        while size < _BATCH_CHARS and len(frames) < most:
            frame, is_notice = self.take()
            if frame is None:
                frame = source.pull()
            if frame is None:
                return frames, noticed, source.fetching
            frames.append(frame)
            size += len(frame)
            noticed = noticed or is_notice
        return frames, noticed, True
