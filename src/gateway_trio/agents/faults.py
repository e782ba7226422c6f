"""What other people's code raises: whose it is, and what it says, whatever it does when it is asked."""

from __future__ import annotations

from typing import Self

import trio

from gateway_trio.core.text import clean

__all__ = ["MESSAGE_CHARS", "Held", "said_by"]

#: Of what an exception says. It stands in an event, and no frame is over 256 KiB: a character is 12 bytes at most.
MESSAGE_CHARS = 8192


def said_by(error: BaseException) -> str:
    """Return the message of an exception, as any frame can carry it; its class where it has none to show."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - its `__str__` is other people's code too
        text = ""
    text = text or type(error).__name__
    return clean(text if len(text) <= MESSAGE_CHARS else f"{text[: MESSAGE_CHARS - 1]}…")


class Held:
    """Around a call of an agent: what it raises ends there and is its `error`, None if there is nothing.

    What must go on its way does: a cancel of Trio's, and Ctrl-C. Anything else is the agent's own, also what is no
    `Exception`: the SystemExit of a tool, or another event loop's cancel.
    """

    _PASSING = (trio.Cancelled, KeyboardInterrupt)

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        passing: BaseException | None = None
        if isinstance(error, BaseExceptionGroup):
            passing, self.error = error.split(self._PASSING)
        elif isinstance(error, self._PASSING):
            passing = error
        else:
            self.error = error
        if passing is not None and self.error is not None:
            raise passing from None
        return passing is None
