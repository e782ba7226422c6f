"""A gateway's status as rows of a table for a person: pure.

Whatever stands in the status, none of it raises: the gateway may be older or newer than this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gateway_trio.core.printable import printable
from gateway_trio.core.text import short

__all__ = ["glance", "span"]

_LONGEST = 500  #: characters of what somebody wrote


def span(seconds: float) -> str:
    """Return a time in its two greatest units: `3 d 4 h`, `12 min 5 s`, `7 s`."""
    whole = max(int(seconds), 0)
    minutes, seconds_left = divmod(whole, 60)
    hours, minutes_left = divmod(minutes, 60)
    days, hours_left = divmod(hours, 24)
    parts = [(days, "d"), (hours_left, "h"), (minutes_left, "min"), (seconds_left, "s")]
    while len(parts) > 1 and not parts[0][0]:
        del parts[0]
    return " ".join(f"{number} {unit}" for number, unit in parts[:2])


def glance(status: Mapping[str, Any], *, now: float, when: Callable[[float], str]) -> Iterator[tuple[str, str]]:
    """Yield the rows of a status, each a name and what to say.

    Args:
        status: the answer to `_gateway-trio/status`.
        now: the present, in Unix seconds.
        when: writes a time, in Unix seconds, as date and time of day.

    """
    left = _number(status.get("remainingMs"))
    yield "phase", _text(status.get("phase")) + ("" if left is None else f", at most {left / 1000:.0f} s left")
    asked = _table(status.get("asked"))
    for reason in _list(status.get("reasons")):
        yield f"reason {_text(reason)}", _asked(_table(asked.get(reason)), now, when)
    yield "turns", _text(status.get("turns", 0))
    yield "execs", _text(status.get("execs", 0))
    for exec_ in map(_table, _list(status.get("running"))):
        began = _number(exec_.get("at"))
        since = "" if began is None else f" for {span(now - began)}"
        yield (
            f"  {_text(exec_.get('id'))}",
            f"{_text(exec_.get('name'))}, {_text(exec_.get('state'))}{since}, by {_text(exec_.get('by'))}",
        )
    yield "breaker", _breaker(_table(status.get("breaker")))
    yield "connections", _text(status.get("connections", 0))
    yield "sessions", _text(status.get("sessions", 0))
    if abandoned := _list(status.get("abandoned")):
        yield "abandoned", ", ".join(map(_text, abandoned))
    if (started := _number(status.get("started"))) is not None:
        yield "started", f"{when(started)}, {span(now - started)} ago"


def _asked(asked: Mapping[str, Any], now: float, when: Callable[[float], str]) -> str:
    said = f"asked for by {_text(asked.get('by', 'nobody known'))}"
    if (at := _number(asked.get("at"))) is not None:
        said += f" at {when(at)}, {span(now - at)} ago"
    return f"{said}: {_text(asked['why'])}" if asked.get("why") else said


def _breaker(breaker: Mapping[str, Any]) -> str:
    state = _text(breaker.get("state", "unknown"))
    probe = _number(breaker.get("nextProbeMs"))
    return state if probe is None else f"{state}, the next probe in {probe / 1000:.0f} s"


def _text(value: object) -> str:
    return short(printable(str(value)), _LONGEST)


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
