"""When to ask again: exponential backoff with jitter, and never before the time that the other side named."""

from __future__ import annotations

__all__ = ["FIRST_SECONDS", "MOST_SECONDS", "next_try"]

#: The wait before the second try; it doubles from try to try.
FIRST_SECONDS = 0.5
MOST_SECONDS = 8.0


def next_try(failures: int, *, most: int, asked: float | None, left: float, chance: float) -> float | None:
    """Return the seconds to wait before the next try, None where there is to be none.

    Args:
        failures: how many tries have failed, 1 or more.
        most: how many may follow the first.
        asked: the seconds that the other side asked us to wait; None if it did not.
        left: the seconds in which all must be done. A wait that ends later is not begun.
        chance: a random number from 0 to 1, by which those that failed together come apart.

    """
    if failures > most:
        return None
    backoff = min(FIRST_SECONDS * 2 ** min(failures - 1, 30), MOST_SECONDS) * (0.5 + chance / 2)
    wait = (asked or 0.0) + backoff
    return wait if wait < left else None
