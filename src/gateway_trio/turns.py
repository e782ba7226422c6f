"""Turns: admission, the queue, running, the outcome.

A turn is two tasks. The *turn task*, in the nursery `turns`, owns the outcome, the time limits and the saving.
The agent's *body* runs in the nursery `agents`, the outermost, under a scope of its own. So an agent that
ignores its cancellation costs its own turn and not the drain: after `cleanup_seconds` the turn task records
the outcome without it, and leaves.

`admit` and `advance` are synchronous: between the look at the phase and the task there is no checkpoint. A
body is started in `agents` by the turn task, which stands in a nursery inside it, so that one is always open.
"""

from __future__ import annotations

import math
from typing import Any

import trio

from gateway_trio.agents import (
    Agent,
)
from gateway_trio.agents import Turn as View
from gateway_trio.breaker import Breaker
from gateway_trio.config import Config
from gateway_trio.core.breaker import asked_wait
from gateway_trio.core.events import Body, Change, Prompt
from gateway_trio.core.jsonrpc import Problem, problem
from gateway_trio.core.lifecycle import Lane
from gateway_trio.core.session import Busy, TurnState
from gateway_trio.drain import Coordinator
from gateway_trio.emissions import emit_for
from gateway_trio.history import Past
from gateway_trio.log import bind, get_logger
from gateway_trio.permissions import asker_for
from gateway_trio.sessions import Session
from gateway_trio.store import AddTurn, MoveTurn, Store, StoreUnavailable
from gateway_trio.turn import Ask, Turn

__all__ = ["ABANDONED_LIMIT", "Turns"]

log = get_logger("turns")

#: Agents that ignored their cancellation and still run. Beyond it prompts are refused as `busy`.
ABANDONED_LIMIT = 8

_KEPT = "The gateway restarts; the prompt is stored and runs after that."

_DRAINING = "The gateway is draining; nothing was sent to the agent. Quick commands still run."


class Turns:
    """All turns of a gateway. `nursery` and `agents` are the two nurseries of the tree, set when they open."""

    nursery: trio.Nursery
    agents: trio.Nursery

    def __init__(
        self, config: Config, coordinator: Coordinator, store: Store, agent: Agent, breaker: Breaker
    ) -> None:
        self.config = config
        self._coordinator = coordinator
        self._breaker = breaker
        self._store = store
        self._agent = agent
        self._limiter = trio.CapacityLimiter(40)
        self._live: dict[str, Turn] = {}

    # --- admission: one synchronous step ---

    def admit(self, session: Session, ask: Ask) -> Turn | Problem:
        """Take a prompt or refuse it. One that is taken has its place, is counted, and its task is started."""
        if not self._coordinator.admits(Lane.TURN):
            return self.draining()
        busy = ask.busy or Busy(self.config.session.busy)
        turn = Turn(session, ask)
        if len(self._coordinator.timeline.abandoned) >= ABANDONED_LIMIT:
            return problem(
                "busy", "too many agents ignore their cancellation; restart the gateway", admitted=False
            )
        position = session.conversation.admit(turn, busy)
        if position is None:
            return problem("busy", _BUSY[busy is Busy.REFUSE], admitted=False)
        self._coordinator.storing.add(turn)
        self.nursery.start_soon(self._accept, turn, busy, position)
        return turn

    def draining(self, message: str = _DRAINING) -> Problem:
        """The refusal of what a drain keeps out, in these words: with its reasons, and when to come again."""
        reasons = sorted(reason.value for reason in self._coordinator.state.reasons)
        again = self._breaker.retry_after_ms()
        return problem("draining", message, admitted=False, retry_after_ms=again, extra={"reasons": reasons})

    async def _accept(self, turn: Turn, busy: Busy, position: int) -> None:
        """Store the prompt; only then is it accepted. The task that `admit` started."""
        self._bind(turn)
        session, ask = turn.session, turn.ask
        row = AddTurn(turn.id, session.id, ask.key, ask.digest, principal=ask.principal)

        def bodies(seq: int) -> list[Prompt | Change]:
            prompt = Prompt(ask.text, "turn", ask.blocks, ask.sender, ask.replaces)
            return [prompt, self._change(turn, TurnState.QUEUED, seq=seq, position=position)]

        stored = False
        try:
            with trio.CancelScope(shield=True, deadline=self._limit()):
                turn.seq = (await session.record(turn.id, bodies, row))[0].number
                stored = True
        except StoreUnavailable as fault:
            log.warning("prompt not stored", session=session.id, error=str(fault))
        finally:
            self._coordinator.storing.discard(turn)
            self._accepted(turn, busy) if stored else self._not_accepted(turn)
            self._coordinator.poke()

    def _accepted(self, turn: Turn, busy: Busy) -> None:
        conversation = turn.session.conversation
        conversation.stored(turn)
        self._live[turn.id] = turn
        if busy is Busy.INTERRUPT and conversation.running is not None:
            self.cancel(conversation.running, TurnState.CANCELLED, "interrupted by the next prompt")
        if turn.asked is not None:
            self._take_out(turn, *turn.asked)
        elif self._coordinator.going_down:
            # Accepted in the very moment in which turns were cancelled: nothing will start it any more.
            self._settle(turn)
        self.advance(turn.session)

    def _not_accepted(self, turn: Turn) -> None:
        turn.session.conversation.refuse(turn)
        fault = problem("store_unavailable", "the prompt could not be stored; nothing was sent", admitted=False)
        for answer in turn.refused:
            answer(fault)
        turn.session.wake()
        self.advance(turn.session)

    def restore(self, turn: Turn) -> None:
        """Let one that an earlier run of the program accepted wait again, behind those that wait."""
        turn.session.conversation.restore(turn)
        self._live[turn.id] = turn

    # --- starting: the second look at the phase ---

    def advance(self, session: Session) -> None:
        """Start the session's next turn, if the gateway is open and nothing runs in it."""
        if not self._coordinator.admits(Lane.TURN):
            return
        turn = session.conversation.start()
        if turn is not None:
            self._coordinator.turns.add(turn)
            self.nursery.start_soon(self._run, turn)

    async def _run(self, turn: Turn) -> None:
        self._bind(turn)
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
            with trio.CancelScope(shield=True, deadline=self._limit()):
                await self._record(turn, *outcome)

    async def _begin(self, turn: Turn) -> bool:
        """Store that it runs, before it does."""
        move = MoveTurn(turn.id, frozenset({TurnState.QUEUED}), TurnState.RUNNING)
        try:
            with trio.CancelScope(shield=True, deadline=self._limit()):
                await turn.session.record(turn.id, lambda _: [self._change(turn, TurnState.RUNNING)], move)
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
            turn.session.id, turn.id, turn.ask.text, turn.ask.blocks, Past(turn.session.log, without=turn.id),
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

    async def _drop(self, turn: Turn, outcome: TurnState, reason: str | None) -> None:
        self._bind(turn)
        with trio.CancelScope(shield=True, deadline=self._limit()):
            await self._record(turn, outcome, reason, None)

    async def _record(self, turn: Turn, outcome: TurnState, reason: str | None, message: str | None) -> None:
        """Store and log the one outcome, then let the next turn start.

        Called in a shield with a limit; where the store is slower than that, the log has the outcome alone.
        """
        ran = turn.state is TurnState.RUNNING
        sources = frozenset({TurnState.QUEUED, TurnState.RUNNING})
        turn.ended = change = self._change(turn, outcome, reason=reason, message=message)
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
            if ran:
                turn.session.conversation.end(turn, outcome)
            self._live.pop(turn.id, None)
            self._coordinator.turns.discard(turn)
            self._coordinator.timeline.turn_ended(outcome, ran=ran)
            self._coordinator.tally.turn_ended(outcome, trio.current_time() - turn.began if ran else None)
            self.advance(turn.session)
            self._coordinator.poke()

    def _change(self, turn: Turn, state: TurnState, **more: Any) -> Change:
        message = more.pop("message", None)
        facts: dict[str, Any] = {"message": message} if message else {}
        if turn.unavailable is not None:
            again = asked_wait(turn.unavailable.retry_after_seconds)
            facts |= {} if again is None else {"retryAfterMs": math.ceil(again * 1000)}
        ends = state not in (TurnState.QUEUED, TurnState.RUNNING)
        more["stop_reason"] = turn.stop_reason if state is TurnState.COMPLETED else None
        seq = more.pop("seq", turn.seq)
        return Change("turn", turn.id, state.value, seq, ends, turn.ask.key, facts=facts or None, **more)

    def _bind(self, turn: Turn) -> None:
        """Say on each line of this task whose turn it is: not that of whoever let it start."""
        bind(session=turn.session.id, turn=turn.id, principal=turn.ask.principal)

    def _limit(self) -> float:
        """When a commit is given up: no store may hold anything longer than `cleanup_seconds`."""
        return trio.current_time() + self.config.drain.cleanup_seconds

    # --- what others ask of turns ---

    @property
    def waiting(self) -> int:
        """How many accepted prompts have not started, of all sessions."""
        return sum(turn.state is TurnState.QUEUED for turn in self._live.values())

    def find(self, turn_id: str) -> Turn | None:
        """Return a turn that waits or runs."""
        return self._live.get(turn_id)

    def rests(self, session: Session) -> bool:
        """Whether no turn of the session runs or waits, and each has its outcome in the log."""
        counted = self._coordinator.turns | self._coordinator.storing
        return session.conversation.idle and not any(turn.session is session for turn in counted)

    def current(self, session: Session) -> Turn | None:
        """Return the session's turn that runs, or that will as soon as it is stored."""
        conversation = session.conversation
        if conversation.running is not None or not conversation.queue:
            return conversation.running
        head = conversation.queue[0]
        return head if head.state is TurnState.ACCEPTING else None

    def cancel(self, turn: Turn, outcome: TurnState, reason: str | None) -> None:
        """End a turn that waits or runs with this outcome; does nothing to one that has one already."""
        if turn.state is TurnState.QUEUED:
            if not self._coordinator.going_down:
                self._take_out(turn, outcome, reason)
        elif not turn.over:
            turn.cancel(outcome, reason, cleanup_seconds=self.config.drain.cleanup_seconds)

    def _take_out(self, turn: Turn, outcome: TurnState, reason: str | None) -> None:
        """End one that waits: its outcome is recorded by a task that is counted like a running turn."""
        turn.session.conversation.drop(turn, outcome)
        self._coordinator.turns.add(turn)
        self.nursery.start_soon(self._drop, turn, outcome, reason)

    def stop(self, session: Session) -> tuple[Turn | None, list[Turn]]:
        """Cancel the running turn and the queue; return what ran and what was dropped."""
        running = self.current(session)
        dropped = [turn for turn in session.conversation.queue if turn is not running]
        for turn in dropped:
            self.cancel(turn, TurnState.CANCELLED, "stopped")
        if running is not None:
            self.cancel(running, TurnState.CANCELLED, "stopped")
        return running, dropped

    def warn_all(self) -> None:
        """Set `turn.draining` of every turn that runs."""
        for turn in self._coordinator.turns:
            turn.draining.set()

    def cancel_all(self) -> None:
        """The grace is over: end every running turn, each by its own scope."""
        for turn in list(self._coordinator.turns):
            if turn.state is TurnState.RUNNING:
                self.cancel(turn, TurnState.INTERRUPTED, "the gateway went down")

    def settle_queued(self) -> None:
        """What was accepted and never started: a durable store keeps it for the next start, memory cannot."""
        for turn in list(self._live.values()):
            if turn.state is TurnState.QUEUED:
                self._settle(turn)

    def _settle(self, turn: Turn) -> None:
        if self._store.durable:
            self._coordinator.timeline.turn_left_queued()
            kept = problem("draining", _KEPT, admitted=True, retryable=False)
            for answer in turn.refused:
                answer(kept)
        else:
            self._take_out(turn, TurnState.INTERRUPTED, "the gateway went down before it could start")


_BUSY = {
    False: "the queue is full; send it again when there is room",
    True: "a turn is running",
}
