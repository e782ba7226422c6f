"""One turn: the prompt as it was asked, the agent's body, the wait for it, and how it ended."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import trio
from attrs import evolve, frozen

from gateway_trio.agents import Agent, AgentError, BackendUnavailable, Emit, unavailable_in
from gateway_trio.agents import Turn as View
from gateway_trio.agents.faults import Held, said_by
from gateway_trio.core.breaker import asked_wait
from gateway_trio.core.events import Change
from gateway_trio.core.jsonrpc import Problem
from gateway_trio.core.permission import CANCELLED
from gateway_trio.core.session import Busy, Place, TurnState
from gateway_trio.log import bind, get_logger
from gateway_trio.sessions import Session

if TYPE_CHECKING:
    from gateway_trio.permissions import Request

__all__ = ["Ask", "Turn"]

log = get_logger("turns")


@frozen
class Ask:
    """A prompt as it was sent. `sender` names the connection; `replaces` a turn that is run again."""

    text: str
    blocks: tuple[Mapping[str, Any], ...]
    principal: str
    sender: str = ""
    key: str | None = None
    busy: Busy | None = None  #: None: the config's
    digest: str = ""  #: of text and blocks, by which a repeated key's prompt is known
    replaces: str | None = None


class Turn(Place):
    """One prompt on its way to its outcome. All its scopes exist from admission on."""

    def __init__(self, session: Session, ask: Ask, id_: str | None = None) -> None:
        super().__init__()
        self.id = id_ or "t" + secrets.token_hex(6)
        self.session = session
        self.ask = ask
        self.digest = ask.digest
        self.seq = 0
        self.began = math.nan  #: when it started to run
        self.ended: Change | None = None
        self.ended_at = 0
        self.refused: list[Callable[[Problem], object]] = []
        self.left: Problem | None = None
        self.draining = trio.Event()
        self.stop_reason = "end_turn"  #: what a completed one answers
        self._scope = trio.CancelScope()
        self._done = trio.Event()
        self._asked: tuple[TurnState, str | None] | None = None
        self._gives_up = math.inf
        self._waiting = trio.CancelScope()
        self._active = 0.0
        self._requests: set[Request] = set()  # permission requests that are open
        self._error: BaseException | None = None

    @property
    def asked(self) -> tuple[TurnState, str | None] | None:
        """The outcome that somebody asked for, and why."""
        return self._asked

    @property
    def over(self) -> bool:
        """Whether it has its outcome, or is about to have it."""
        return self.ended is not None

    def cancel(self, outcome: TurnState, reason: str | None, *, cleanup_seconds: float) -> None:
        """End the body; the first outcome that is asked for stands. Safe at any time."""
        if self._asked is None:
            self._asked = (outcome, reason)
            self._gives_up = trio.current_time() + cleanup_seconds
        self._scope.cancel()
        for request in self._requests:  # after that: an agent that does not shield itself is not to go on
            request.settle(CANCELLED)
        self._waiting.cancel()

    def leave(self, why: Problem) -> None:
        """It is stored, and waits for the next run of the program: those who wait for its outcome are told."""
        self.left = why
        for answer in self.refused:
            answer(why)
        self.refused.clear()

    def close(self) -> None:
        """Let go of what only a turn without an outcome needs: whoever sent it may keep it for long."""
        for request in self._requests:
            request.settle(CANCELLED)
        self.ask = evolve(self.ask, text="", blocks=())
        self.refused.clear()

    async def until_done(self) -> None:
        """Wait for the body to end, however long that takes."""
        await self._done.wait()

    # --- the body, in `agents` ---

    async def body(self, agent: Agent, view: View, emit: Emit) -> None:
        """Run the agent. Whatever it raises is kept for the outcome; a cancel from outside passes."""
        held = Held()
        try:
            with held, self._scope:
                await agent.run(view, emit)
        finally:
            self._error = held.error
            self._done.set()

    # --- the wait for it, in `turns` ---

    async def wait(self, *, idle_seconds: float, turn_seconds: float, cleanup_seconds: float) -> bool:
        """Wait for the body within its limits; False if it was given up.

        A cancel from outside (the tree's deadline) passes.
        """
        self._active = start = trio.current_time()
        while not self._done.is_set():
            now = trio.current_time()
            idle_at = math.inf if self._requests else self._active + idle_seconds  # waiting for people is not idle
            limit = min(start + turn_seconds, idle_at)
            if self._asked is not None:
                if now >= self._gives_up:
                    return False
                limit = self._gives_up
            elif now >= limit:
                slow = "turn_idle" if now < start + turn_seconds else "turn_too_long"
                self.cancel(TurnState.FAILED, slow, cleanup_seconds=cleanup_seconds)
                continue
            self._waiting = trio.CancelScope(deadline=limit)
            with self._waiting:
                await self._done.wait()
        return True

    def emitted(self) -> None:
        """The agent is alive: its idle limit counts from now."""
        self._active = trio.current_time()

    def asks(self, request: Request) -> None:
        """The agent asks for permission. If the turn is being cancelled, nobody is to answer that any more."""
        self._requests.add(request)
        if self._asked is not None:
            request.settle(CANCELLED)

    def asks_no_more(self, request: Request) -> None:
        """A request has ended: the idle limit counts again, from now."""
        self._requests.discard(request)
        self.emitted()
        self._waiting.cancel()

    def outcome(self) -> tuple[TurnState, str | None, str | None]:
        """Return outcome, reason and a sentence for the user, from what was asked and how the body ended."""
        cut = self._scope.cancelled_caught or not self._done.is_set() or self._error is not None
        if self._asked is not None and cut:
            return (*self._asked, None)
        if not self._done.is_set():
            return TurnState.INTERRUPTED, "cut", None
        if self._error is None:
            return TurnState.COMPLETED, None, None
        return (TurnState.FAILED, *_explain(self.id, self._error))

    def change(self, state: TurnState, **more: Any) -> Change:
        """Return the event that says so. `more` are fields of `Change`, and `message`, a sentence for the user."""
        message = more.pop("message", None)
        facts: dict[str, Any] = {"message": message} if message else {}
        if self.unavailable is not None:
            again = asked_wait(self.unavailable.retry_after_seconds)
            facts |= {} if again is None else {"retryAfterMs": math.ceil(again * 1000)}
        ends = state not in (TurnState.QUEUED, TurnState.RUNNING)
        more["stop_reason"] = self.stop_reason if state is TurnState.COMPLETED else None
        seq = more.pop("seq", self.seq)
        return Change("turn", self.id, state.value, seq, ends, self.ask.key, facts=facts or None, **more)

    def bind_log(self) -> None:
        """Say on each line of this task whose turn it is: not that of whoever let it start."""
        bind(session=self.session.id, turn=self.id, principal=self.ask.principal)

    @property
    def unavailable(self) -> BackendUnavailable | None:
        """How the backend failed, if that is how the turn ended: what somebody asked for goes before."""
        return unavailable_in(self._error) if self._asked is None else None


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]


def _explain(turn_id: str, error: BaseException) -> tuple[str, str]:
    """Return a reason and a sentence; what the agent did not name is logged, and not shown."""
    leaves = _leaves(error)
    if (unavailable := unavailable_in(error)) is not None:
        return "backend_unavailable", said_by(unavailable)
    for leaf in leaves:
        if isinstance(leaf, AgentError):
            return "failed", said_by(leaf)
    log.error("agent failed", turn=turn_id, exc_info=error)
    return "internal", "the agent failed; the log says why"
