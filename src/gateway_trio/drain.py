"""Carries out what `core.lifecycle` decides: the one coordinator of a gateway.

Everything that may change the phase ends in `Coordinator._step`: it asks the table, and carries out the
actions in the same synchronous step. What runs is counted in three sets: `storing` (admitted prompts that are
not stored yet), `turns`, `execs`. Whoever adds to one starts a task in the same step, and that task takes it
out.

The two `async` methods are the waits of a drain. Each returns in the very step in which what it waits for
holds, so nothing can slip in between the look and the change of the phase.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import trio

from gateway_trio.config import DrainConfig
from gateway_trio.core import lifecycle
from gateway_trio.core.lifecycle import Action
from gateway_trio.core.phases import Asked, Lane, Phase, Reason, State
from gateway_trio.core.tally import Tally
from gateway_trio.log import get_logger
from gateway_trio.report import Timeline

__all__ = ["Coordinator"]

log = get_logger("drain")


class Coordinator:
    """Holds the lifecycle's state and what it counts; `config` has the seconds of a drain.

    `timeline` is told what a drain's report needs, `tally` what the metrics do.
    """

    def __init__(self, config: DrainConfig) -> None:
        self.state = State()
        self.config = config
        self.storing: set[Any] = set()
        self.turns: set[Any] = set()
        self.execs: set[Any] = set()
        self.sockets: set[Any] = set()
        self.timeline = Timeline()
        self.tally = Tally()
        self._changed = trio.Event()
        self._counts = (0, 0)
        self._counted: list[Callable[[], None]] = []
        self._actions: dict[Action, list[Callable[[], None]]] = {action: [] for action in Action}

    # --- what others ask ---

    @property
    def phase(self) -> Phase:
        return self.state.phase

    @property
    def going_down(self) -> bool:
        """Whether turns were cancelled already: nothing leads back to `open` from here."""
        return self.phase not in (Phase.STARTING, Phase.OPEN, Phase.DRAINING)

    def admits(self, lane: Lane) -> bool:
        """Whether work of this lane may begin now."""
        return self.state.admits(lane)

    def remaining_ms(self) -> int | None:
        """How long the present phase lasts at most; None if nothing bounds it."""
        left = self.state.phase_deadline - trio.current_time()
        return None if left == math.inf else max(0, round(left * 1000))

    # --- what others tell ---

    def on(self, action: Action, do: Callable[[], None]) -> None:
        """Register what carries out an action; several are called in the order in which they came."""
        self._actions[action].append(do)

    def poke(self) -> None:
        """A count changed: the wait that is under way looks again, and those who count are told."""
        self._changed.set()
        self._changed = trio.Event()
        counts = (len(self.turns), len(self.execs))
        if counts != self._counts:
            self._counts = counts
            for tell in self._counted:
                tell()

    def on_count(self, tell: Callable[[], None]) -> None:
        """Register what is to be called, synchronously, when the number of turns or execs is another."""
        self._counted.append(tell)

    def opened(self) -> None:
        """The store is ready."""
        self._step(lifecycle.Opened())

    def drain(
        self,
        reason: Reason,
        *,
        by: str,
        why: str = "",
        grace_seconds: float | None = None,
        exec_seconds: float | None = None,
    ) -> None:
        """Add a reason. The seconds override the config's for a final one; None leaves them."""
        now = trio.current_time()
        grace = self.config.grace_seconds if grace_seconds is None else grace_seconds
        asked = Asked(by, time.time(), why)
        self._step(lifecycle.Drain(reason, asked, now, grace, self.config.stop_budget_seconds, exec_seconds))

    def hurry(self, *, by: str) -> None:
        """A second signal: turns are cancelled now, and execs get `cleanup_seconds`."""
        self.drain(Reason.SHUTDOWN, by=by, grace_seconds=0, exec_seconds=self.config.cleanup_seconds)

    def noticed(self) -> None:
        """A connection was sent a phase notice."""
        if self.state.final and self.phase is Phase.DRAINING:
            self.timeline.noticed()

    def undrain(self, reason: Reason) -> bool:
        """Take a reason away; return whether that changed anything."""
        before = self.state
        self._step(lifecycle.Undrain(reason))
        return self.state != before

    # --- the waits of a drain, in its order ---

    async def until_turns_end(self) -> None:
        """Return in phase `finishing`: no turn runs and each has its outcome."""
        await self._until(
            lambda: self.state.final and not self.turns and not self.storing,
            lambda: self.state.turn_deadline,
        )
        self._step(lifecycle.TurnsDone())
        await self._until(lambda: not self.turns and not self.storing)
        self._step(lifecycle.TurnsRecorded(trio.current_time() + self.config.exec_seconds))

    async def until_execs_end(self) -> None:
        """Return in phase `closing`, and no exec is left."""
        await self._until(lambda: not self.execs, lambda: self.state.exec_deadline)
        self._step(lifecycle.ExecsDone())
        await self._until(lambda: not self.execs)

    async def until_sockets_close(self) -> None:
        """Return when no connection is left, or after `close_seconds`."""
        end = trio.current_time() + self.config.close_seconds
        await self._until(lambda: not self.sockets, lambda: end)
        self.timeline.sockets_gone()

    def closed(self, *, cut: bool) -> None:
        """The last step; `cut` says that the way down did not come to its own end."""
        self._step(lifecycle.Cut() if cut else lifecycle.SocketsClosed())

    # --- inside ---

    async def _until(self, holds: Callable[[], bool], deadline: Callable[[], float] = lambda: math.inf) -> None:
        while not holds() and trio.current_time() < deadline():
            with trio.CancelScope(deadline=deadline()):
                await self._changed.wait()

    def _step(self, event: lifecycle.Event) -> None:
        before = self.state
        self.state, actions = lifecycle.step(before, event)
        if self.state.final and not before.final:
            self.timeline.begin(turns=len(self.turns), execs=len(self.execs))
        elif before.final and not self.state.final:
            self.timeline.take_back()
        self.tally.drained(self.state.reasons - before.reasons)
        if self.state.phase is not before.phase:
            self.timeline.entered(self.state.phase)
            self.tally.entered(self.state.phase, trio.current_time())
            log.info("phase", phase=self.state.phase.value, reasons=[r.value for r in self.state.reasons])
        for action in actions:
            for do in self._actions[action]:
                do()
        self.poke()

    def status(self) -> Mapping[str, Any]:
        """Phase, reasons and who asked, and what runs: for `/status`, `/livez` and the wire."""
        return {
            "phase": self.phase.value,
            "reasons": sorted(r.value for r in self.state.reasons),
            "asked": {
                reason.value: {"by": asked.by, "at": asked.at, "why": asked.why}
                for reason, asked in self.state.asked.items()
            },
            "remainingMs": self.remaining_ms(),
            "turns": len(self.turns),
            "execs": len(self.execs),
            "accepts": [lane.value for lane in (Lane.TURN, Lane.EXEC, Lane.CONTROL) if self.admits(lane)],
            "revocable": self.state.revocable,
        }
