"""Asking for permission: a request from its event to its answer.

A request belongs to its turn, which cancels it, and to its session, whose clients answer it: `Request` is the
one object that both hold. The agent's own task stores the two events, so that the answer is in the log before
the agent goes on. Where that task is too slow, the turn's outcome brings the answer with it (`turns`).

Nothing here polls: the time at which a request lapses is the deadline of the scope in which it waits, and moves
as the last client goes and the first one comes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio
from attrs import asdict

from gateway_trio.agents import AgentError, AskPermission, ToolCall, TurnOver
from gateway_trio.core.permission import (
    CANCELLED,
    LAPSED,
    Answered,
    Asked,
    Decision,
    PermissionOption,
    check_options,
    find,
    preferred,
)
from gateway_trio.core.text import short
from gateway_trio.emissions import TooBig, checkpoint, fit, to_update
from gateway_trio.journal import Over
from gateway_trio.log import get_logger
from gateway_trio.store import StoreUnavailable

if TYPE_CHECKING:
    from gateway_trio.desk import Prompted
    from gateway_trio.turn import Turn

__all__ = ["MOST_OPEN", "Request", "asker_for", "decide"]

log = get_logger("permissions")

#: Requests of one turn that are open at once. A further one waits for one of them to end.
MOST_OPEN = 16

_SHOWN = 60  #: characters of an option's name


class Request:
    """One permission request. Its first decision stands.

    `lapse_seconds` is for how long it outlives the session's last client.
    """

    def __init__(self, lapse_seconds: float) -> None:
        self.asked: Asked  # once it is in the log
        self.decision: Decision | None = None
        self._lapse_seconds = lapse_seconds
        self._waiting = trio.CancelScope()
        self._decided = trio.Event()

    def settle(self, decision: Decision) -> Decision:
        """Decide it, unless that is done; return what was decided."""
        self.decision = self.decision or decision
        self._decided.set()
        return self.decision

    def attended(self, *, anybody: bool) -> None:
        """Say whether a client reads the session now: if none does, it lapses after a time that begins here."""
        self._waiting.deadline = math.inf if anybody else trio.current_time() + self._lapse_seconds

    async def wait(self) -> None:
        """Wait until it is decided, or lapses. Cancelling leaves it as it is."""
        with self._waiting:
            await self._decided.wait()
        self.settle(LAPSED)


def asker_for(turn: Turn, *, lapse_seconds: float, store_seconds: float) -> AskPermission:
    """Return the `ask_permission` of a turn.

    `lapse_seconds` is what a request gets after the session's last client has gone, `store_seconds` what the
    store gets to take the answer.
    """
    slots = trio.Semaphore(MOST_OPEN)

    async def ask(tool: ToolCall, options: Sequence[PermissionOption]) -> Decision:
        await checkpoint(turn)
        wire, options = _checked(tool, options)
        async with slots:
            await checkpoint(turn)
            request = Request(lapse_seconds)
            turn.asks(request)  # from here on a cancel of the turn reaches it
            try:
                if request.decision is not None:  # nobody is asked for a turn that is being cancelled
                    return request.decision
                await _show(turn, request, wire, options)
                return await _settled(turn, request, store_seconds)
            finally:
                turn.asks_no_more(request)

    return ask


def _checked(
    tool: ToolCall, options: Sequence[PermissionOption]
) -> tuple[dict[str, object], tuple[PermissionOption, ...]]:
    """Return the request as every client can read it."""
    if not isinstance(tool, ToolCall):
        raise TypeError(f"permission is asked for a ToolCall, not for {type(tool).__name__}")
    check_options(options)
    offered = [asdict(option) for option in options]
    try:
        call = {name: value for name, value in to_update(tool).items() if name != "sessionUpdate"}
        whole = fit({"toolCall": call, "options": offered}, "permission request", within=1)
    except TooBig as fault:
        raise AgentError(str(fault)) from None
    shown = tuple(PermissionOption(**option) for option in whole["options"])
    check_options(shown)  # two ids may have become the same one
    return whole["toolCall"], shown


async def _show(
    turn: Turn, request: Request, tool: dict[str, object], options: tuple[PermissionOption, ...]
) -> None:
    """Store and log the request: then it is shown to whoever reads the session."""
    session = turn.session

    def body(seq: int) -> list[Asked]:
        return [Asked(f"p{seq}", tool, options)]

    try:
        (entry,) = await session.record(turn.id, body, over=lambda: turn.over)
    except Over:
        raise TurnOver(f"turn {turn.id} has its outcome") from None
    except StoreUnavailable as fault:
        raise AgentError("the permission request could not be stored") from fault
    asked = entry.body
    assert isinstance(asked, Asked)  # noqa: S101 - `body` made it
    request.asked = asked
    session.requests[asked.id] = request
    request.attended(anybody=bool(session.readers))
    log.info("permission asked", turn=turn.id, permission=asked.id)


async def _settled(turn: Turn, request: Request, store_seconds: float) -> Decision:
    """Wait for the decision, and log it, whatever it is."""
    try:
        await request.wait()
    finally:
        decision = request.settle(CANCELLED)
        del turn.session.requests[request.asked.id]
        with trio.CancelScope(shield=True, deadline=trio.current_time() + store_seconds):
            await _answer(turn, request.asked.id, decision)
    return decision


async def _answer(turn: Turn, id_: str, decision: Decision) -> None:
    """Store and log the answer; log it alone where the store is too slow or would not take it."""
    log.info(
        "permission answered",
        turn=turn.id,
        permission=id_,
        outcome=decision.outcome,
        kind=decision.option and decision.option.kind,
        by=decision.by,
    )
    session, body = turn.session, Answered(id_, decision)
    logged = False
    try:
        await session.record(turn.id, lambda _: [body], over=lambda: turn.over)
        logged = True
    except Over:
        logged = True  # the outcome has brought it
    except StoreUnavailable as fault:
        log.warning("permission answer not stored", turn=turn.id, error=str(fault))
    finally:
        if not logged and not turn.over:
            session.insist(turn.id, lambda _: [body])


def decide(prompted: Prompted, id_: str, *, allow: bool) -> str:
    """Carry out `/allow` and `/deny` in the session of a prompt; return what to tell whoever sent it.

    `id_` is the request's, empty where it was left out.
    """
    requests = prompted.session.requests
    undecided = {key: request.asked for key, request in requests.items() if request.decision is None}
    asked = find(undecided, id_)
    if isinstance(asked, str):
        return asked
    option = preferred(asked.options, allow=allow)
    if option is None:
        return f"{asked.id} offers no way to {'allow' if allow else 'deny'} it."
    requests[asked.id].settle(Decision("selected", option, prompted.sender.principal.name))
    return f"{'Allowed' if allow else 'Denied'} {asked.id}: {asked.title} ({short(option.name, _SHOWN)})."
