"""What becomes of a prompt: the one place through which every prompt of every dialect goes.

`core.commands.decide` says what it is; this carries that out, in the same synchronous step. An `Asker` is the
way back to whoever sent it: a notice, a refusal, or a turn or exec whose outcome the asker follows.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from attrs import evolve, field, frozen

from gateway_trio.core.commands import (
    Refusal,
    RunBuiltIn,
    RunExec,
    ToAgent,
    Unknown,
    Verdict,
    decide,
)
from gateway_trio.core.jsonrpc import Problem, problem
from gateway_trio.core.phases import Lane
from gateway_trio.core.session import Busy
from gateway_trio.history import last_prompt
from gateway_trio.log import get_logger
from gateway_trio.quick import ExecAsk
from gateway_trio.sessions import Session, Work
from gateway_trio.turn import Ask

if TYPE_CHECKING:
    from gateway_trio.connection import Connection
    from gateway_trio.gateway import Gateway

__all__ = ["Asker", "Desk", "Prompted", "log_refusal"]

log = get_logger("desk")


def log_refusal(refusal: Refusal, principal: str) -> None:
    """Note who was refused which command: part of the audit."""
    if refusal.command is not None:
        log.info(
            "refused", command=refusal.command.name, via=refusal.via, principal=principal, reason=refusal.reason
        )


class Asker(Protocol):
    """How one prompt is answered: exactly one of these is called."""

    def notice(self, text: str) -> None:
        """It was a control command, or an unknown one; this is the answer."""

    def refuse(self, problem: Problem) -> None:
        """Nothing was started."""

    def follow(self, work: Work) -> None:
        """It became this turn or exec, or joined it. Called before the work's first event."""


@frozen
class Prompted:
    """A prompt as it came: its text, and all its blocks if it had others than one text."""

    session: Session
    text: str
    sender: Connection = field(eq=False)
    blocks: tuple[Mapping[str, Any], ...] = ()
    first: str | None = None  #: the text of the first block; None if that is all the text
    key: str | None = None
    busy: Busy | None = None

    @property
    def digest(self) -> str:
        """What two prompts with the same key are compared by."""
        return hashlib.sha256(json.dumps([self.text, self.blocks], sort_keys=True).encode()).hexdigest()


class Desk:
    """Takes prompts in."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def submit(self, asker: Asker, prompted: Prompted) -> None:
        """Decide and carry out, without a checkpoint."""
        earlier = prompted.session.joined(prompted.key)
        if earlier is not None:
            if earlier.digest != prompted.digest:
                asker.refuse(problem("conflict", "this key was used for another prompt", admitted=False))
            else:
                self._follow(asker, earlier)
            return
        gateway = self._gateway
        verdict = decide(
            prompted.text if prompted.first is None else prompted.first,
            catalog=gateway.config.catalog,
            role=prompted.sender.principal.role,
            admits=gateway.coordinator.admits,
        )
        self._carry_out(asker, prompted, verdict)

    def refusal(self, refusal: Refusal) -> Problem:
        """Return the problem of a command's refusal; while draining with the reasons."""
        if refusal.reason == "draining":
            return self._gateway.turns.draining(refusal.message)
        return problem(refusal.reason, refusal.message, admitted=False)

    def _carry_out(self, asker: Asker, prompted: Prompted, verdict: Verdict) -> None:
        match verdict:
            case Unknown():
                asker.notice(verdict.notice)
            case Refusal():
                asker.refuse(self.refusal(verdict))
                log_refusal(verdict, prompted.sender.principal.name)
            case ToAgent():
                text = prompted.text
                self._turn(asker, prompted, text[1:] if text.startswith("//") else text)
            case _ if len(prompted.blocks) > 1:
                asker.refuse(
                    problem("usage", "a command is one block of text, and nothing beside it", admitted=False)
                )
            case RunExec():
                self._exec(asker, prompted, verdict)
            case RunBuiltIn(command, rest) if command.lane is Lane.TURN:
                self._turn_command(asker, prompted, command.name, rest)
            case RunBuiltIn(command, rest):
                self._gateway.control.run(command.name, rest, asker, prompted)

    def _exec(self, asker: Asker, prompted: Prompted, verdict: RunExec) -> None:
        sender = prompted.sender
        ask = ExecAsk(
            verdict.command, verdict.words, sender.principal.name, prompted.session, prompted.text, sender.id,
            prompted.key, prompted.digest,
        )  # fmt: skip
        self._answer(asker, prompted, self._gateway.execs.admit(ask))

    def _turn(self, asker: Asker, prompted: Prompted, text: str, **as_asked: Any) -> None:
        """Take in a prompt of this text; `as_asked` are fields of its `Ask` that are others than those sent.

        Its key is compared by what was sent.
        """
        sender = prompted.sender
        if (too_many := self._gateway.entrance.spend_prompt(sender.principal)) is not None:
            log.info("refused", principal=sender.principal.name, reason=too_many.reason)
            asker.refuse(too_many)
            return
        ask = Ask(
            text,
            prompted.blocks,
            sender.principal.name,
            sender.id,
            prompted.key,
            prompted.busy,
            prompted.digest,
        )
        ask = evolve(ask, **as_asked)
        self._answer(asker, prompted, self._gateway.turns.admit(prompted.session, ask))

    def _answer(self, asker: Asker, prompted: Prompted, work: Work | Problem) -> None:
        if isinstance(work, Problem):
            asker.refuse(work)
        else:
            prompted.session.remember(prompted.key, work, time.time())
            self._follow(asker, work)

    def _follow(self, asker: Asker, work: Work) -> None:
        """Let the asker wait for the outcome, or for the refusal of what could not be stored."""
        if work.left is not None:
            asker.refuse(work.left)
            return
        if work.ended is None:
            work.refused.append(asker.refuse)
        asker.follow(work)

    def _turn_command(self, asker: Asker, prompted: Prompted, name: str, rest: str) -> None:
        match name:
            case "queue":
                self._turn(asker, prompted, rest, busy=Busy.QUEUE, blocks=())
            case "interrupt":
                self._turn(asker, prompted, rest, busy=Busy.INTERRUPT, blocks=())
            case "retry":
                self._retry(asker, prompted)
            case "new":
                self._gateway.control.begin_anew(asker, prompted)

    def _retry(self, asker: Asker, prompted: Prompted) -> None:
        if not prompted.session.conversation.idle:
            asker.refuse(problem("busy", "a turn runs or waits; /stop ends it", admitted=False))
            return
        last = last_prompt(prompted.session.log)
        if last is None:
            asker.refuse(problem("usage", "there is no prompt to run again", admitted=False))
            return
        turn_id, prompt = last
        self._turn(asker, prompted, prompt.text, blocks=prompt.blocks, replaces=turn_id)
