"""Kinds of config fields: a default, a unit and a check, said once, where the field stands.

    grace_seconds: float = seconds(20)
    queue_limit: int = count(32, most=100_000)

The checks are attrs validators, so they hold for a config that a program builds as for one that a file holds.
They raise ValueError with half a sentence that follows the field's path: `drain.grace_seconds: must be …`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from attrs import NOTHING, Attribute, field

__all__ = ["ItemsError", "count", "number", "seconds", "text", "texts"]

MOST_SECONDS = 1e9  # thirty years; threads and timers overflow at about ten times that


class ItemsError(ValueError):
    """Some items of a list are wrong.

    Args:
        messages: what is wrong, by index.

    """

    def __init__(self, messages: Mapping[int, str]) -> None:
        super().__init__("; ".join(f"[{index}] {message}" for index, message in messages.items()))
        self.messages = messages


def seconds(default: float) -> Any:
    """Return an attrs field for a time in seconds: a finite number above 0, int or float, never bool."""

    def check(_instance: object, _attribute: "Attribute[float]", value: object) -> None:
        if not (type(value) in (int, float) and 0 < value <= MOST_SECONDS):  # type: ignore[operator]
            raise ValueError(f"must be a finite number of seconds above 0 and at most {MOST_SECONDS:g}")

    return field(default=default, validator=check)


def number(default: float, *, least: float, most: float) -> Any:
    """Return an attrs field for a number from `least` to `most`, both included; int or float, never bool."""

    def check(_instance: object, _attribute: "Attribute[float]", value: object) -> None:
        if not (type(value) in (int, float) and least <= value <= most):  # type: ignore[operator]
            raise ValueError(f"must be a number from {least:g} to {most:g}")

    return field(default=default, validator=check)


def count(default: int, *, least: int = 0, most: int) -> Any:
    """Return an attrs field for a whole number from `least` to `most`, both included."""

    def check(_instance: object, _attribute: "Attribute[int]", value: object) -> None:
        if not (type(value) is int and least <= value <= most):
            raise ValueError(f"must be a whole number from {least} to {most}")

    return field(default=default, validator=check)


def text(check: Callable[[str], str | None], *, default: Any = NOTHING) -> Any:
    """Return an attrs field for a string.

    Args:
        check: returns what is wrong with it, or None.
        default: stands where there is none, unchecked where it is None; without a default the key is required.

    """

    def validate(_instance: object, _attribute: "Attribute[Any]", value: str | None) -> None:
        if value is not None and (message := check(value)):
            raise ValueError(message)

    return field(default=default, validator=validate)


def texts(check_item: Callable[[str], str | None]) -> Any:
    """Return an attrs field for a tuple of strings, empty by default.

    Args:
        check_item: returns what is wrong with an item, or None.

    """

    def check(_instance: object, _attribute: "Attribute[Any]", value: tuple[str, ...]) -> None:
        messages = {i: message for i, item in enumerate(value) if (message := check_item(item))}
        if messages:
            raise ItemsError(messages)

    nothing: tuple[str, ...] = ()
    return field(default=nothing, validator=check)
