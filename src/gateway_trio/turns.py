"""All turns of a gateway: which prompt is taken, which turn is next, and who may end one.

`admit` and `advance` are synchronous: between the look at the phase and the task there is no checkpoint. What the
task of one turn does is in `turn_runner.py`.
"""

from __future__ import annotations

import trio

from gateway_trio.agents import Agent
from gateway_trio.breaker import Breaker
from gateway_trio.config import Config
from gateway_trio.core.events import Change, Prompt
from gateway_trio.core.jsonrpc import Problem, problem
from gateway_trio.core.phases import Lane, Reason
from gateway_trio.core.session import Busy, TurnState
from gateway_trio.drain import Coordinator
from gateway_trio.log import get_logger
from gateway_trio.sessions import Session
from gateway_trio.store import AddTurn, Store, StoreUnavailable
from gateway_trio.turn import Ask, Turn
from gateway_trio.turn_runner import TurnRunner

__all__ = ["ABANDONED_LIMIT", "Turns"]

log = get_logger("turns")

#: Agents that ignored their cancellation and still run. Beyond it prompts are refused as `busy`.
ABANDONED_LIMIT = 8

_KEPT = {
    True: "The gateway restarts; the prompt is stored and runs after that.",
    False: "The gateway shuts down; the prompt is stored and runs when there is one again.",
}

_DRAINING = "The gateway is draining; nothing was sent to the agent. Quick commands still run."


class Turns:
    """The turns of all sessions.

    `nursery` is that of the turn tasks, set when it opens. When no turn runs any more it is that of the execs, for
    what is recorded of those that wait: one can be dropped as long as control commands are taken.
    """

    nursery: trio.Nursery

    def __init__(
        self, config: Config, coordinator: Coordinator, store: Store, agent: Agent, breaker: Breaker
    ) -> None:
        self.runner = TurnRunner(config, coordinator, agent, breaker, self._ended)
        self._coordinator = coordinator
        self._breaker = breaker
        self._store = store
        self._live: dict[str, Turn] = {}

    @property
    def config(self) -> Config:
        """What goes for turns from now on; a reload sets it."""
        return self.runner.config

    @config.setter
    def config(self, config: Config) -> None:
        self.runner.config = config

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
        turn.bind_log()
        session, ask = turn.session, turn.ask
        row = AddTurn(turn.id, session.id, ask.key, ask.digest, principal=ask.principal)

        def bodies(seq: int) -> list[Prompt | Change]:
            prompt = Prompt(ask.text, "turn", ask.blocks, ask.sender, ask.replaces)
            return [prompt, turn.change(TurnState.QUEUED, seq=seq, position=position)]

        stored = False
        try:
            with trio.CancelScope(shield=True, deadline=self.runner.limit()):
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
        turn.session.forget(turn.ask.key, turn)
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
            self.nursery.start_soon(self.runner.run, turn)

    def _ended(self, turn: Turn) -> None:
        """A turn has its outcome: the next one may start."""
        self._live.pop(turn.id, None)
        self.advance(turn.session)

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
        """End a turn that waits or runs with this outcome; does nothing to one that has one already.

        Nor to one that waits once the gateway is closing, when nothing is recorded any more.
        """
        if turn.state is TurnState.QUEUED:
            if self._coordinator.admits(Lane.CONTROL):
                self._take_out(turn, outcome, reason)
        elif not turn.over:
            turn.cancel(outcome, reason, cleanup_seconds=self.config.drain.cleanup_seconds)

    def _take_out(self, turn: Turn, outcome: TurnState, reason: str | None) -> None:
        """End one that waits: its outcome is recorded by a task that is counted like a running turn."""
        turn.session.conversation.drop(turn, outcome)
        self._coordinator.turns.add(turn)
        self.nursery.start_soon(self.runner.drop, turn, outcome, reason)

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
            restarts = Reason.SHUTDOWN not in self._coordinator.state.reasons
            turn.leave(problem("draining", _KEPT[restarts], admitted=True, retryable=False))
        else:
            self._take_out(turn, TurnState.INTERRUPTED, "the gateway went down before it could start")


_BUSY = {
    False: "the queue is full; send it again when there is room",
    True: "a turn is running",
}
