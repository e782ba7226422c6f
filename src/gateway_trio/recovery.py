"""What an earlier run of the program left unfinished: settled when the store is open, before the doors are.

* A turn that ran is `interrupted`; its text is in the history. Nothing is run again by itself: `/retry` does.
* A turn that waited waits again, before all new prompts of its session; too old, it is `interrupted` too.
* An exec that ran has an outcome that nobody knows. It is not run again, and what it left running is named.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gateway_trio import procfs
from gateway_trio.core.events import Body, Change, Kind, Message, Prompt
from gateway_trio.core.facts import closing_line
from gateway_trio.core.session import OUTCOMES, TurnState
from gateway_trio.execs import Status
from gateway_trio.log import get_logger
from gateway_trio.procscan import Target
from gateway_trio.quick import STATES
from gateway_trio.sessions import PastWork, Session
from gateway_trio.store import EndExec, MoveTurn
from gateway_trio.store import Work as WorkRow
from gateway_trio.turn import Ask, Turn

if TYPE_CHECKING:
    from gateway_trio.gateway import Gateway

__all__ = ["recover"]

log = get_logger("recovery")

#: How long the look at /proc for what one exec left running may take.
_LOOK_SECONDS = 2.0

_NOT_ENDED = frozenset(TurnState) - OUTCOMES


async def recover(gateway: Gateway) -> None:
    """Settle what is unfinished. Raises `StoreUnavailable` if the store will not take that."""
    works = await gateway.store.unfinished()
    for work in works:
        session = None if work.session is None else await gateway.sessions.get(work.session)
        if work.kind == "exec":
            await _end_exec(gateway, work, session)
        elif session is None:
            await gateway.store.commit([MoveTurn(work.id, _NOT_ENDED, TurnState.INTERRUPTED)])
        elif work.state is TurnState.RUNNING:
            await _interrupt(session, work, "the gateway was cut off")
        elif time.time() - work.at > gateway.config.session.queued_seconds:
            await _interrupt(session, work, "stale")
        else:
            await _queue(gateway, session, work)
    if works:
        turns = sum(work.kind == "turn" for work in works)
        log.info("recovered", turns=turns, execs=len(works) - turns)


async def _interrupt(session: Session, work: WorkRow, reason: str) -> None:
    change = Change("turn", work.id, TurnState.INTERRUPTED.value, work.seq, ends=True, key=work.key, reason=reason)
    move = MoveTurn(work.id, _NOT_ENDED, TurnState.INTERRUPTED)
    entries = await session.record(work.id, lambda _: session.log.last_words(change), move)
    session.remember(work.key, PastWork(work.id, work.digest, session, change, entries[-1].number), work.at)


async def _queue(gateway: Gateway, session: Session, work: WorkRow) -> None:
    entry = await session.entry(work.seq)
    prompt = None if entry is None else entry.body
    if not isinstance(prompt, Prompt):
        await _interrupt(session, work, "the prompt is not kept any more")
        return
    ask = Ask(
        prompt.text, prompt.blocks, work.principal, prompt.sender, work.key, None, work.digest, prompt.replaces
    )
    turn = Turn(session, ask, work.id)
    turn.seq = work.seq
    session.remember(work.key, turn, work.at)
    gateway.turns.restore(turn)


async def _end_exec(gateway: Gateway, work: WorkRow, session: Session | None) -> None:
    orphans = await procfs.find(Target(work.id), seconds=_LOOK_SECONDS)
    facts: dict[str, Any] = {
        "id": work.id, "status": Status.UNKNOWN.value, "exitCode": None, "signal": None,
        "seconds": 0.0, "bytes": 0, "cut": 0, "background": len(orphans),
    }  # fmt: skip
    log.warning("exec with unknown outcome", id=work.id, command=work.command, orphans=orphans)
    end = EndExec(work.id, facts, time.time())
    if session is None:
        await gateway.store.commit([end])
        return
    entry = await session.entry(work.seq)
    admin = entry is None or entry.admin  # rather hidden than shown to who may not see it
    line = closing_line(facts, silent=False) or ""
    if orphans:
        line += f" (process {', '.join(map(str, orphans))})"
    await session.say(work.id, Kind.OUTPUT, f"{line}\n", lambda: session.record(work.id, _message, admin=admin))
    change = Change(
        "exec", work.id, STATES[Status.UNKNOWN], work.seq, ends=True, key=work.key, reason="unknown", facts=facts,
        stop_reason="end_turn",
    )  # fmt: skip
    entries = await session.record(work.id, lambda _: [change], end, admin=admin)
    session.remember(work.key, PastWork(work.id, work.digest, session, change, entries[0].number), work.at)


def _message(_: int) -> Sequence[Body]:
    return [Message(Kind.OUTPUT)]
