"""Carries out what `core.breaker` decides: drains for a failing backend, probes it, and takes the drain back.

The service `watch` stands in the tree's nursery `services` and waits for the breaker to open. A probe is an
agent's own code, so its body runs where those of turns do, in `agents`, under a scope of its own. One that ignores
its cancellation is named, like a turn's, and costs neither the breaker nor the way down: until it ends the probes
that are due after it count as failed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import trio

from gateway_trio.agents import Agent, BackendUnavailable, ProbedAgent, unavailable_in
from gateway_trio.agents.faults import Held, said_by
from gateway_trio.config import BreakerConfig
from gateway_trio.core import breaker
from gateway_trio.core.breaker import Action, ProbeFailed, ProbeSucceeded, Reset, Stand, TurnFailed, TurnSucceeded
from gateway_trio.core.phases import Reason
from gateway_trio.core.session import TurnState
from gateway_trio.core.text import short
from gateway_trio.drain import Coordinator
from gateway_trio.log import get_logger

__all__ = ["Breaker"]

log = get_logger("breaker")

#: How a probe that ignores its cancellation is named among the turns that do.
_NAME = "probe"

_WHY_CHARS = 200

#: What a refusal says while a probe runs, whose end nobody knows.
_WHILE_PROBING_MS = 1000


class Breaker:
    """The one breaker of a gateway. `agents` is the tree's outermost nursery, set when it opens."""

    agents: trio.Nursery

    def __init__(self, config: BreakerConfig, coordinator: Coordinator, agent: Agent) -> None:
        self.state = breaker.State()
        self.use(config)
        self._coordinator = coordinator
        self._cleanup_seconds = coordinator.config.cleanup_seconds
        self._agent = agent
        self._opened = trio.Event()
        self._opening = trio.CancelScope()  #: ends when the breaker is not open any more
        self._probe: _Probe | None = None  #: whose body has not ended
        self._stopped = False

    # --- what others tell and ask ---

    def use(self, config: BreakerConfig) -> None:
        """Let other limits hold, from the next event on."""
        self._limits = breaker.Limits(config.failures, config.window_seconds, config.probe_seconds)

    def turn_ended(self, outcome: TurnState, unavailable: BackendUnavailable | None) -> None:
        """A turn has this outcome; `unavailable` is how the backend failed it, None if it did not.

        To be told before the session's next turn may start, as this one may open the breaker.
        """
        if outcome is TurnState.COMPLETED:
            self._step(TurnSucceeded(trio.current_time()))
        elif unavailable is not None:
            self._step(TurnFailed(trio.current_time(), *_told_by(unavailable)))

    def reset(self) -> None:
        """An admin says that the backend works: turns are tried again."""
        self._step(Reset(trio.current_time()))

    def stop(self) -> None:
        """Turns are cancelled, and nothing leads back to `open`: a probe that runs is ended, and none begins."""
        self._stopped = True
        self._opening.cancel()

    def next_probe_ms(self) -> int | None:
        """Milliseconds until the next probe, 0 while one runs; None unless the breaker is open."""
        left = self.state.probe_at - trio.current_time()
        return None if left == math.inf else max(0, math.ceil(left * 1000))

    def retry_after_ms(self) -> int | None:
        """When a prompt that is refused now may be sent again; None where a probe alone does not decide that."""
        left = self.next_probe_ms()
        if left is None or self._coordinator.state.reasons != {Reason.BACKEND}:
            return None
        return left or _WHILE_PROBING_MS

    def status(self) -> Mapping[str, Any]:
        """How the breaker stands and when the next probe is, as JSON types."""
        return {"state": self.state.stand.value, "nextProbeMs": self.next_probe_ms()}

    # --- probing ---

    async def watch(self) -> None:
        """Probe whenever the breaker is open. Runs until cancelled, which ends a probe that runs."""
        while True:
            await self._opened.wait()
            self._opening = trio.CancelScope()
            if self._stopped:
                return
            with self._opening:
                await self._probe_until_it_answers()

    async def _probe_until_it_answers(self) -> None:
        while self.state.stand is Stand.OPEN:
            due = self.state.probe_at
            await trio.sleep_until(due)
            if self.state.probe_at > due:  # it asked to be left alone for longer
                continue
            fault = await self._ask()
            # What comes when this opening has ended tells nothing of the next one.
            await trio.lowlevel.checkpoint_if_cancelled()
            at = trio.current_time()
            if fault is not None:
                log.info("probe failed", why=said_by(fault))
            self._step(ProbeSucceeded(at) if fault is None else ProbeFailed(at, *_told_by(fault)))

    async def _ask(self) -> BackendUnavailable | None:
        """Return why the backend does not answer, None if it does, or if the agent has no probe.

        A probe may take as long as the wait before it. Cancelling ends it: one that has not ended
        `cleanup_seconds` later is given up, and named.
        """
        agent = self._agent
        if not isinstance(agent, ProbedAgent):
            return None
        if self._probe is not None:
            return BackendUnavailable("the last probe still runs")
        self._probe = probe = _Probe()
        self.agents.start_soon(self._run, probe, agent)
        try:
            with trio.move_on_after(self.state.wait):
                await probe.done.wait()
            if not probe.done.is_set():
                return BackendUnavailable("it did not answer a probe in time")
        finally:
            probe.scope.cancel()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._cleanup_seconds):
                await probe.done.wait()
            if not probe.done.is_set():
                self._coordinator.timeline.turn_abandoned(_NAME)
                log.warning("probe ignores its cancellation")
        return probe.fault

    async def _run(self, probe: _Probe, agent: ProbedAgent) -> None:
        try:
            await probe.run(agent)
        finally:
            self._probe = None
            self._coordinator.timeline.turn_let_go(_NAME)

    # --- inside ---

    def _step(self, event: breaker.Event) -> None:
        before = self.state
        self.state, actions = breaker.step(before, event, self._limits)
        if self.state.stand is not before.stand:
            log.info("breaker", why=self.state.why, **self.status())
        for action in actions:
            self._drain() if action is Action.DRAIN else self._undrain()

    def _drain(self) -> None:
        self._opened.set()
        self._coordinator.drain(Reason.BACKEND, by="breaker", why=self.state.why)

    def _undrain(self) -> None:
        self._opened = trio.Event()
        self._opening.cancel()
        self._coordinator.undrain(Reason.BACKEND)


class _Probe:
    """One probe: its scope, and what it found."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.fault: BackendUnavailable | None = None

    async def run(self, agent: ProbedAgent) -> None:
        """Let the agent probe. Only `BackendUnavailable` counts; any other fault is as if there were no probe."""
        held = Held()
        try:
            with held, self.scope:
                await agent.probe()
        finally:
            self.fault = unavailable_in(held.error)
            if self.fault is None and held.error is not None:
                log.error("probe failed", exc_info=held.error)
            self.done.set()


def _told_by(error: BackendUnavailable) -> tuple[str, float | None]:
    return short(said_by(error), _WHY_CHARS), error.retry_after_seconds
