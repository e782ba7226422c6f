"""A value of which only the newest counts, for any number of readers."""

from __future__ import annotations

import copy
from typing import Generic, Self, TypeVar

import trio

__all__ = ["News", "Reader"]

T = TypeVar("T")


class News(Generic[T]):
    """`value` is the newest, None before the first."""

    def __init__(self) -> None:
        self.value: T | None = None
        self.version = 0
        self.error: Exception | None = None
        self._changed = trio.Event()

    def set(self, value: T) -> None:
        """Tell every reader."""
        self.value = value
        self.version += 1
        self._wake()

    def end(self, error: Exception) -> None:
        """Nothing comes after the newest value but this error."""
        if self.error is None:
            self.error = error
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def changed(self) -> None:
        """Return at the next `set` or `end`."""
        await self._changed.wait()


class Reader(Generic[T]):
    """Iterates over a `News`: first its value, if it has one, then each newest one; a slow reader misses some.

    Raises the news' error at its end. Cancelling loses nothing.
    """

    def __init__(self, news: News[T]) -> None:
        self._news = news
        self._seen = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        await trio.lowlevel.checkpoint()
        while self._seen == self._news.version:
            if self._news.error is not None:
                raise copy.copy(self._news.error)
            await self._news.changed()
        self._seen = self._news.version
        value = self._news.value
        assert value is not None  # noqa: S101 - a version has a value
        return value
