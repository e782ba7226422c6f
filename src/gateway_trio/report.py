"""What a drain took: the timeline that is kept while it happens, and the report made of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import trio
from attrs import asdict, field, frozen

from gateway_trio.core.phases import FINAL, Phase, Reason, State
from gateway_trio.core.session import TurnState

__all__ = ["DrainReport", "Timeline"]


@frozen
class DrainReport:
    """How the last drain of a gateway went. Times are in seconds.

    `overhead_seconds` is what the gateway itself took: the total less the time in which a turn or an exec still
    ran or a socket still took its last bytes.
    """

    reason: str  #: `shutdown` or `restart`
    asked_by: str
    phases: Mapping[str, float]
    turns_running: int  #: when the drain began
    turns_finished: int
    turns_interrupted: int
    turns_queued: int  #: accepted and not started: interrupted too, or left to a durable store
    turns_abandoned: tuple[str, ...]  #: ids of those that ignored cancellation; `probe` for the backend's probe
    execs_running: int  #: when the drain began
    execs_finished: int  #: those begun later are counted too
    execs_killed: int
    connections_told: int
    connections_closed: int  #: with a close handshake
    connections_forced: int
    notice_seconds: float  #: from the first notice of the drain to the last
    total_seconds: float
    overhead_seconds: float
    cut: bool = False  #: the budget ended it before its own end

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@frozen
class _Count:
    """Counters that begin anew with each drain."""

    values: dict[str, int] = field(factory=dict)

    def add(self, name: str) -> None:
        self.values[name] = self.values.get(name, 0) + 1

    def __getitem__(self, name: str) -> int:
        return self.values.get(name, 0)


class Timeline:
    """Notes, on Trio's clock, what happens from the moment at which a final reason stands."""

    def __init__(self) -> None:
        self.abandoned: dict[str, None] = {}
        self._reset(math.nan, turns=0, execs=0)

    def begin(self, *, turns: int, execs: int) -> None:
        """A final reason stands from now on; so many run."""
        self._reset(trio.current_time(), turns=turns, execs=execs)

    def _reset(self, began: float, *, turns: int, execs: int) -> None:
        self._began = began
        self._running = (turns, execs)
        self._entered: list[tuple[Phase, float]] = [] if math.isnan(began) else [(Phase.DRAINING, began)]
        self._count = _Count()
        self._notices = (math.inf, -math.inf)
        self._last_turn = self._last_exec = self._last_bye = -math.inf
        self._sockets_gone = math.inf

    def take_back(self) -> None:
        """No final reason stands any more."""
        self._reset(math.nan, turns=0, execs=0)

    def entered(self, phase: Phase) -> None:
        """Note a phase, if a final reason stands."""
        if not math.isnan(self._began):
            self._entered.append((phase, trio.current_time()))

    def turn_stopped(self) -> None:
        """An agent's body ended, or was given up: from here on it is the gateway that takes time."""
        self._last_turn = trio.current_time()

    def turn_ended(self, outcome: TurnState, *, ran: bool) -> None:
        """A turn has its outcome; `ran` is False for one that only waited."""
        if not ran:
            self._count.add("queued")
        else:
            self._count.add("interrupted" if outcome is TurnState.INTERRUPTED else "finished")

    def turn_left_queued(self) -> None:
        """A durable store keeps this accepted prompt for after the restart."""
        self._count.add("queued")

    def turn_abandoned(self, turn_id: str) -> None:
        """A body ignored its cancellation."""
        self.abandoned[turn_id] = None

    def turn_let_go(self, turn_id: str) -> None:
        """An abandoned body ended after all."""
        self.abandoned.pop(turn_id, None)

    def exec_ended(self, *, killed: bool) -> None:
        self._last_exec = trio.current_time()
        self._count.add("killed" if killed else "exec finished")

    def noticed(self) -> None:
        """A connection was sent the notice of the drain."""
        first, now = self._notices[0], trio.current_time()
        self._notices = (min(first, now), now)

    def said_goodbye(self) -> None:
        """A connection was sent all there was, and its close frame."""
        self._last_bye = trio.current_time()
        self._count.add("told")

    def socket_ended(self, *, clean: bool) -> None:
        """A connection that we closed is at its end; `clean`: the peer has closed it too."""
        self._count.add("closed" if clean else "forced")

    def sockets_gone(self) -> None:
        """The last socket was closed, or is given up."""
        self._sockets_gone = trio.current_time()

    def report(self, state: State, *, cut: bool) -> DrainReport:
        """Make the report; `state` is the last one."""
        now = trio.current_time()
        began = now if math.isnan(self._began) else self._began
        spans = self._spans(began, now)
        total = now - began
        reason = Reason.RESTART if state.reasons & FINAL == {Reason.RESTART} else Reason.SHUTDOWN
        asked = state.asked.get(reason)
        count = self._count
        first, last = self._notices
        return DrainReport(
            reason=reason.value,
            asked_by=asked.by if asked else "",
            phases={phase.value: round(end - start, 6) for phase, (start, end) in spans.items()},
            turns_running=self._running[0],
            turns_finished=count["finished"],
            turns_interrupted=count["interrupted"],
            turns_queued=count["queued"],
            turns_abandoned=tuple(self.abandoned),
            execs_running=self._running[1],
            execs_finished=count["exec finished"],
            execs_killed=count["killed"],
            connections_told=count["told"],
            connections_closed=count["closed"],
            connections_forced=count["forced"],
            notice_seconds=round(max(last - first, 0.0), 6),
            total_seconds=round(total, 6),
            overhead_seconds=round(max(total - self._waited(spans), 0.0), 6),
            cut=cut,
        )

    def _spans(self, began: float, now: float) -> dict[Phase, tuple[float, float]]:
        entered = [(phase, max(at, began)) for phase, at in self._entered]
        spans: dict[Phase, tuple[float, float]] = {}
        for (phase, start), (_, end) in pairwise([*entered, (Phase.CLOSED, now)]):
            if phase is not Phase.CLOSED:
                spans[phase] = (spans.get(phase, (start, end))[0], end)
        return spans

    def _waited(self, spans: Mapping[Phase, tuple[float, float]]) -> float:
        """Seconds in which the phase waited for something of others: a turn, an exec, a socket."""

        def until(last: float, *phases: Phase) -> float:
            return sum(min(max(last - spans[p][0], 0.0), spans[p][1] - spans[p][0]) for p in phases if p in spans)

        waited = until(self._last_turn, Phase.DRAINING, Phase.CANCELLING)
        waited += until(self._last_exec, Phase.FINISHING, Phase.CLOSING)
        if Phase.CLOSING in spans:
            start, end = spans[Phase.CLOSING]
            waited += max(min(end, self._sockets_gone) - max(start, self._last_exec, self._last_bye), 0.0)
        return waited
