"""What the Autobahn test suite's `index.json` says of one server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["SECTIONS", "counts", "faults"]

#: All but 12 and 13, which are compression: an extension that we do not speak.
SECTIONS = ("1", "2", "3", "4", "5", "6", "7", "9", "10")

#: `NON-STRICT` is right too, but not as strict as the suite would like it; `INFORMATIONAL` has no right answer.
_PASSED = frozenset({"OK", "NON-STRICT", "INFORMATIONAL"})

Cases = Mapping[str, Mapping[str, Any]]


def faults(cases: Cases) -> Iterator[str]:
    """Yield what keeps a run from being one that passed: a case that failed, a section of which nothing ran.

    `cases` are those of one server, by number.
    """
    for number, case in cases.items():
        for what in ("behavior", "behaviorClose"):
            if case.get(what) not in _PASSED:
                yield f"case {number}: {what} {case.get(what)}"
    ran = {number.partition(".")[0] for number in cases}
    for section in SECTIONS:
        if section not in ran:
            yield f"section {section}: no case ran"


def counts(cases: Cases) -> dict[str, int]:
    """Return how many cases behaved how."""
    found: dict[str, int] = {}
    for case in cases.values():
        found[case["behavior"]] = found.get(case["behavior"], 0) + 1
    return found
