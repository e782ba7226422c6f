"""Medians and spreads, for people and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the middle nine tenths and the number of the values."""
    ordered = sorted(values)
    low, high = ordered[int(0.05 * (len(ordered) - 1))], ordered[int(0.95 * (len(ordered) - 1) + 0.5)]
    return {"median": statistics.median(ordered), "p5": low, "p95": high, "n": len(ordered)}


def line(name: str, values: Sequence[float], unit: str = "ms", scale: float = 1000) -> str:
    s = spread(values)
    low, mid, high = (s[k] * scale for k in ("p5", "median", "p95"))
    return f"{name:<44} {mid:9.2f} {unit}   [{low:.2f} … {high:.2f}]  n={s['n']}"


def finish(as_json: bool, results: Mapping[str, object]) -> None:
    if as_json:
        print(json.dumps(results, indent=2))
