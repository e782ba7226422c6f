"""What `/metrics` says, read at the moment of the scrape. The only module that imports prometheus_client.

What somebody owns (the coordinator its phase, the breaker its stand) is read from its owner; what has happened is
counted by `core.tally`. Names and units are Prometheus' (https://prometheus.io/docs/practices/naming). Labels come
from fixed sets: no session, no principal, nobody's words.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import trio
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway_trio import __version__
from gateway_trio.core.breaker import Stand
from gateway_trio.core.phases import Phase, Reason
from gateway_trio.core.tally import BUCKETS, Histogram

if TYPE_CHECKING:
    from gateway_trio.gateway import Gateway

__all__ = ["Scrapes"]


class Scrapes:
    """The registry of one gateway. The process's own metrics (memory, CPU, descriptors) are in it."""

    content_type = CONTENT_TYPE_PLAIN_0_0_4  #: the text format of Prometheus, which every version of it reads

    def __init__(self, gateway: Gateway) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_GatewayCollector(gateway))
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Return all metrics as Prometheus text, of one moment. For the gateway's Trio run."""
        return generate_latest(self._registry)


class _GatewayCollector(Collector):
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def describe(self) -> Iterable[Metric]:
        """Nothing: the names are known to be no others', and a gateway need not be read at registration."""
        return ()

    def collect(self) -> Iterator[Metric]:
        yield _gauge("gateway_trio_build_info", "The version that runs.", {__version__: 1}, "version")
        yield from self._lifecycle()
        yield from self._turns()
        yield from self._execs()
        yield from self._clients()

    def _lifecycle(self) -> Iterator[Metric]:
        coordinator, breaker = self._gateway.coordinator, self._gateway.breaker
        tally, now = coordinator.tally, trio.current_time()
        state = coordinator.state
        yield _gauge(
            "gateway_trio_phase", "1 for the phase in which the gateway is.", _one(Phase, state.phase), "phase"
        )
        yield _gauge(
            "gateway_trio_drain_reason", "1 for each reason for which it drains.",
            {reason.value: float(reason in state.reasons) for reason in Reason}, "reason",
        )  # fmt: skip
        left = max(state.phase_deadline - now, 0.0)
        if left != math.inf:
            yield _gauge("gateway_trio_phase_remaining_seconds", "Until this phase ends at the latest.", left)
        seconds = {phase.value: spent for phase, spent in tally.phase_seconds(now).items()}
        yield _counter("gateway_trio_phase_seconds", "How long it was in each phase.", seconds, "phase")
        yield _counter("gateway_trio_drains", "How often each reason came to stand.", tally.drains, "reason")
        yield _gauge(
            "gateway_trio_breaker_state",
            "1 for how the breaker stands.",
            _one(Stand, breaker.state.stand),
            "state",
        )

    def _turns(self) -> Iterator[Metric]:
        turns, coordinator = self._gateway.turns, self._gateway.coordinator
        tally = coordinator.tally
        yield _gauge("gateway_trio_turns_running", "Turns that run.", len(coordinator.turns))
        yield _gauge("gateway_trio_turns_waiting", "Accepted prompts that have not started.", turns.waiting)
        yield _gauge(
            "gateway_trio_agents_abandoned", "Agents that ignore their cancellation and still run.",
            len(coordinator.timeline.abandoned),
        )  # fmt: skip
        yield _counter("gateway_trio_turns", "Accepted prompts that have an outcome.", tally.turns, "outcome")
        seconds = HistogramMetricFamily("gateway_trio_turn_seconds", "How long turns ran.", labels=["outcome"])
        for outcome, histogram in tally.turn_seconds.items():
            seconds.add_metric([outcome], _buckets(histogram), histogram.sum)
        yield seconds

    def _execs(self) -> Iterator[Metric]:
        execs, coordinator = self._gateway.execs, self._gateway.coordinator
        tally, waiting = coordinator.tally, execs.waiting
        yield _gauge("gateway_trio_execs_running", "Quick commands that run.", len(coordinator.execs) - waiting)
        yield _gauge("gateway_trio_execs_waiting", "Quick commands that wait for a slot.", waiting)
        yield _counter("gateway_trio_execs", "Quick commands that have ended.", tally.execs, "status")
        seconds = HistogramMetricFamily("gateway_trio_exec_seconds", "How long their processes ran.")
        seconds.add_metric([], _buckets(tally.exec_seconds), tally.exec_seconds.sum)
        yield seconds

    def _clients(self) -> Iterator[Metric]:
        gateway, tally = self._gateway, self._gateway.coordinator.tally
        yield _gauge("gateway_trio_connections", "Open connections.", len(gateway.connections))
        yield _gauge(
            "gateway_trio_connections_unauthenticated", "Of them, those that are nobody's yet.",
            gateway.entrance.waiting,
        )  # fmt: skip
        yield _gauge("gateway_trio_sessions", "Sessions in memory.", len(gateway.sessions))
        yield _counter("gateway_trio_closes", "Connections that the gateway closed.", tally.closes, "why")
        yield _counter("gateway_trio_refusals", "Errors that were answered.", tally.refusals, "reason")
        yield _counter("gateway_trio_http_refusals", "HTTP requests that were refused.", tally.rejects, "status")


def _gauge(name: str, text: str, value: float | Mapping[str, float], label: str | None = None) -> Metric:
    family = GaugeMetricFamily(name, text, labels=None if label is None else [label])
    return _filled(family, value)


def _counter(name: str, text: str, values: Mapping[str, float], label: str) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=[label]), values)


def _filled(
    family: GaugeMetricFamily | CounterMetricFamily, value: float | Mapping[str, float]
) -> GaugeMetricFamily | CounterMetricFamily:
    for name, number in value.items() if isinstance(value, Mapping) else [(None, value)]:
        family.add_metric([] if name is None else [name], number)
    return family


def _one(kinds: type[enum.Enum], now: enum.Enum) -> dict[str, float]:
    return {kind.value: float(kind is now) for kind in kinds}


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    bounds = [*map(str, BUCKETS), "+Inf"]
    return [(bound, float(count)) for bound, count in zip(bounds, histogram.cumulative(), strict=True)]
