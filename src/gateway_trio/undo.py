"""Changes of plain mappings that are all taken back, if one of them turns out not to be possible."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from typing import TypeVar

__all__ = ["Undo"]

_K = TypeVar("_K")
_V = TypeVar("_V")


class Undo:
    """Makes changes, and knows how each is taken back."""

    def __init__(self) -> None:
        self._backs: list[Callable[[], object]] = []

    def take_back(self) -> None:
        """Take back all changes, the last one first."""
        while self._backs:
            self._backs.pop()()

    def by(self, back: Callable[[], object]) -> None:
        """Take back by this call what its caller changes by itself."""
        self._backs.append(back)

    def put(self, rows: MutableMapping[_K, _V], key: _K, value: _V) -> None:
        """Set a value."""
        if key in rows:
            before = rows[key]
            self.by(lambda: rows.__setitem__(key, before))
        else:
            self.by(lambda: rows.__delitem__(key))
        rows[key] = value

    def drop(self, rows: MutableMapping[_K, _V], keys: Sequence[_K]) -> None:
        """Take out those keys that are there; taken back, each stands again where it stood."""
        before = list(rows.items())

        def back() -> None:
            rows.clear()
            rows.update(before)

        for key in keys:
            rows.pop(key, None)
        self.by(back)
