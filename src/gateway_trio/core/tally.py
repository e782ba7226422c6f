"""What has happened since the start, counted by labels of fixed sets: what `/metrics` cannot read off the state.

Pure: the caller brings the time. Every label is there from the beginning, with 0, and one that is in no set is a
bug (KeyError): so what a client sends can neither be a label nor make the tables grow.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from gateway_trio.core.exec import Status
from gateway_trio.core.jsonrpc import CLOSES, FAULTS, Close
from gateway_trio.core.phases import Phase, Reason
from gateway_trio.core.session import OUTCOMES, TurnState

__all__ = ["BUCKETS", "Histogram", "Tally"]

#: Upper bounds of the histograms' buckets, in seconds; each counts those at or below it, as Prometheus has it.
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class Histogram:
    """How long things took."""

    def __init__(self) -> None:
        self.sum = 0.0  #: seconds
        self._counts = [0] * (len(BUCKETS) + 1)

    def add(self, seconds: float) -> None:
        self.sum += seconds
        self._counts[bisect_left(BUCKETS, seconds)] += 1

    def cumulative(self) -> list[int]:
        """Return for each bound how many took at most that long, and at last how many there were."""
        found, total = [], 0
        for count in self._counts:
            total += count
            found.append(total)
        return found


class Tally:
    """The counters of one gateway."""

    def __init__(self) -> None:
        outcomes = sorted(outcome.value for outcome in OUTCOMES)
        self.turns: dict[str, int] = _zeros(outcomes)  #: accepted prompts that have their outcome, by that
        self.turn_seconds = {outcome: Histogram() for outcome in outcomes}  #: of those that ran
        self.execs: dict[str, int] = _zeros(status.value for status in Status)
        self.exec_seconds = Histogram()  #: of those whose process was started
        self.refusals: dict[str, int] = _zeros(FAULTS)  #: errors that were answered, by reason
        self.rejects: dict[str, int] = _zeros(_REJECTS)  #: HTTP requests that were refused, by status code
        self.closes: dict[str, int] = _zeros([*CLOSES, _NO_FRAME])  #: connections that we closed, by why
        self.drains: dict[str, int] = _zeros(reason.value for reason in Reason)  #: how often each came to stand
        self._phases = dict.fromkeys(Phase, 0.0)
        self._phase = Phase.STARTING
        self._since: float | None = None

    def turn_ended(self, outcome: TurnState, seconds: float | None) -> None:
        """Count a turn; `seconds` is how long it ran, None for one that only waited."""
        self.turns[outcome.value] += 1
        if seconds is not None:
            self.turn_seconds[outcome.value].add(seconds)

    def exec_ended(self, status: Status, seconds: float | None) -> None:
        """Count an exec that was accepted; `seconds` is how long its process ran, None for one that had none."""
        self.execs[status.value] += 1
        if seconds is not None:
            self.exec_seconds.add(seconds)

    def refused(self, reason: str) -> None:
        """Count an error that was answered; `reason` is one of `FAULTS`."""
        self.refusals[reason] += 1

    def rejected(self, status: int) -> None:
        """Count an HTTP request that was answered with this status code, 400 or more."""
        code = str(status)
        self.rejects[code if code in self.rejects else "other"] += 1

    def closed(self, why: Close | None) -> None:
        """Count a connection that we closed; `why` is one of `CLOSES`, None for a peer that broke RFC 6455."""
        self.closes[_NO_FRAME if why is None else _CLOSE_NAMES[why]] += 1

    def drained(self, reasons: Iterable[Reason]) -> None:
        """Count reasons that did not stand before."""
        for reason in reasons:
            self.drains[reason.value] += 1

    def entered(self, phase: Phase, now: float) -> None:
        """Note the phase from `now` on, in seconds of a clock that never goes back."""
        self._phases = self.phase_seconds(now)
        self._phase, self._since = phase, now

    def phase_seconds(self, now: float) -> dict[Phase, float]:
        """Return how long the gateway has been in each phase up to `now`, all times together."""
        spent = 0.0 if self._since is None else now - self._since
        return {**self._phases, self._phase: self._phases[self._phase] + spent}


_NO_FRAME = "protocol"
_CLOSE_NAMES = {close: name for name, close in CLOSES.items()}

#: Status codes with which requests are refused; any other is `other`.
_REJECTS = ("400", "401", "403", "404", "405", "426", "429", "431", "503", "505", "other")


def _zeros(names: Iterable[str]) -> dict[str, int]:
    return dict.fromkeys(names, 0)
