"""The task of one turn: it starts the agent's body, waits for it within limits, and records the one outcome.

The *turn task*, in the nursery `turns`, owns the outcome, the time limits and the saving. The agent's *body* runs
in the nursery `agents`, the outermost, under a scope of its own. So an agent that ignores its cancellation costs
its own turn and not the drain: after `cleanup_seconds` the turn task records the outcome without it, and leaves.

A body is started in `agents` by the turn task, which stands in a nursery inside it, so that one is always open.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from gateway_trio.agents import Agent
from gateway_trio.agents import Turn as View
from gateway_trio.breaker import Breaker
from gateway_trio.config import Config
from gateway_trio.core.events import Body
from gateway_trio.core.session import TurnState
from gateway_trio.drain import Coordinator
from gateway_trio.emissions import emit_for
from gateway_trio.history import Past
from gateway_trio.log import get_logger
from gateway_trio.permissions import asker_for
from gateway_trio.store import MoveTurn, StoreUnavailable
from gateway_trio.turn import Turn

__all__ = ["TurnRunner"]

log = get_logger("turns")


class TurnRunner:
    """Runs turns. `agents` is the outermost nursery of the tree, set when it opens.

    `ended` is called with each turn that has its outcome, told or stored, in the same step.
    """

    agents: trio.Nursery

    def __init__(
        self,
        config: Config,
        coordinator: Coordinator,
        agent: Agent,
        breaker: Breaker,
        ended: Callable[[Turn], object],
    ) -> None:
        self.config = config
        self._coordinator = coordinator
        self._agent = agent
        self._breaker = breaker
        self._ended = ended
        self._limiter = trio.CapacityLimiter(40)

    def limit(self) -> float:
        """When a commit is given up: no store may hold anything longer than `cleanup_seconds`."""
        return trio.current_time() + self.config.drain.cleanup_seconds

    async def run(self, turn: Turn) -> None:
        """Carry a turn from `running` to its outcome. Cancelling cuts it: its outcome is recorded all the same."""
        turn.bind_log()
        limits = self.config.session
        turn.began = trio.current_time()
        waited = False
        outcome: tuple[TurnState, str | None, str | None] = (TurnState.INTERRUPTED, "cut", None)
        try:
            if await self._begin(turn):
                view = self._view(turn)
                self.agents.start_soon(turn.body, self._agent, view, emit_for(turn))
                waited = await turn.wait(
                    idle_seconds=limits.turn_idle_seconds,
                    turn_seconds=limits.turn_seconds,
                    cleanup_seconds=self.config.drain.cleanup_seconds,
                )
                outcome = turn.outcome()
                self._breaker.turn_ended(outcome[0], turn.unavailable)
                if not waited:
                    self._abandon(turn)
            else:
                outcome = (TurnState.FAILED, "store_unavailable", "the store would not take the turn")
        finally:
            self._coordinator.timeline.turn_stopped()
            with trio.CancelScope(shield=True, deadline=self.limit()):
                await self._record(turn, *outcome)

    async def _begin(self, turn: Turn) -> bool:
        """Store that it runs, before it does."""
        move = MoveTurn(turn.id, frozenset({TurnState.QUEUED}), TurnState.RUNNING)
        try:
            with trio.CancelScope(shield=True, deadline=self.limit()):
                await turn.session.record(turn.id, lambda _: [turn.change(TurnState.RUNNING)], move)
                return True
        except StoreUnavailable as fault:
            log.warning("turn not started", turn=turn.id, error=str(fault))
        return False

    def _view(self, turn: Turn) -> View:
        ask = asker_for(
            turn,
            lapse_seconds=self.config.session.permission_seconds,
            store_seconds=self.config.drain.cleanup_seconds,
        )
        return View(
            turn.session.id, turn.id, turn.ask.text, turn.ask.blocks, Past(turn.session.log, before=turn.id),
            turn.ask.principal, turn.draining, self._limiter, ask,
        )  # fmt: skip

    def _abandon(self, turn: Turn) -> None:
        """Name a body that ignores its cancellation; it is taken off the list when it ends after all."""
        timeline = self._coordinator.timeline
        timeline.turn_abandoned(turn.id)
        log.warning("agent ignores its cancellation", turn=turn.id, session=turn.session.id)

        async def until_it_ends() -> None:
            await turn.until_done()
            timeline.turn_let_go(turn.id)

        self.agents.start_soon(until_it_ends)

    # --- the outcome ---

    async def drop(self, turn: Turn, outcome: TurnState, reason: str | None) -> None:
        """Record the outcome of one that never ran. Cancelling does not keep it from that."""
        turn.bind_log()
        with trio.CancelScope(shield=True, deadline=self.limit()):
            await self._record(turn, outcome, reason, None)

    async def _record(self, turn: Turn, outcome: TurnState, reason: str | None, message: str | None) -> None:
        """Store and log the one outcome, then let the next turn start.

        Called in a shield with a limit; where the store is slower than that, the log has the outcome alone.
        """
        ran = turn.state is TurnState.RUNNING
        sources = frozenset({TurnState.QUEUED, TurnState.RUNNING})
        turn.ended = change = turn.change(outcome, reason=reason, message=message)
        entries = None
        move = MoveTurn(turn.id, sources, outcome)

        def bodies(_: int) -> list[Body]:
            return turn.session.log.last_words(change)

        try:
            entries = await turn.session.record(turn.id, bodies, move)
        except StoreUnavailable as fault:
            log.warning("outcome not stored", turn=turn.id, outcome=outcome.value, error=str(fault))
        finally:
            if entries is None:
                entries = turn.session.insist(turn.id, bodies, move)
            turn.ended_at = entries[-1].number
            turn.close()
            turn.session.settle(turn.ask.key, turn)
            if ran:
                turn.session.conversation.end(turn, outcome)
            self._coordinator.turns.discard(turn)
            if turn.left is None:  # else it is counted already
                self._coordinator.timeline.turn_ended(outcome, ran=ran)
            self._coordinator.tally.turn_ended(outcome, trio.current_time() - turn.began if ran else None)
            self._ended(turn)
            self._coordinator.poke()
