"""Our own requests over ACP: what the commands of the same names do, for programs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from gateway_trio.core import acp_params
from gateway_trio.core.acp_params import DrainAsk, KillAsk, Nothing, UndrainAsk
from gateway_trio.core.commands import BUILT_INS, Refusal, RunExec, Unknown, decide_exec, may
from gateway_trio.core.jsonrpc import Problem, RequestId, problem
from gateway_trio.core.phases import Reason
from gateway_trio.desk import log_refusal
from gateway_trio.dialects.acp_frames import answer
from gateway_trio.quick import Exec, ExecAsk, once

if TYPE_CHECKING:
    from gateway_trio.dialects.acp import AcpDialect

__all__ = ["OperatorMethods"]


class OperatorMethods:
    """`_gateway-trio/status`, `exec`, `kill`, `drain`, `undrain` and `restart` of one connection."""

    def __init__(self, dialect: AcpDialect) -> None:
        self._dialect = dialect
        self._gateway = dialect.gateway
        self._connection = dialect.connection

    def status(self, id_: RequestId, _: Nothing) -> None:
        running = [
            {
                "id": exec_.id,
                "name": exec_.ask.command.name,
                "state": exec_.state,
                "by": exec_.ask.principal,
                "at": exec_.began,
            }
            for exec_ in self._gateway.control.execs_of(self._connection.principal)
        ]
        self._dialect.answer(id_, {**self._gateway.status(), "running": running})

    def exec(self, id_: RequestId, ask: acp_params.ExecAsk) -> None:
        gateway, principal = self._gateway, self._connection.principal
        verdict = decide_exec(
            ask.name,
            ask.args,
            catalog=gateway.config.catalog,
            role=principal.role,
            admits=gateway.coordinator.admits,
        )
        match verdict:
            case Unknown():
                self._dialect.refuse(id_, problem("invalid_params", verdict.notice, admitted=False))
            case Refusal():
                log_refusal(verdict, principal.name)
                self._dialect.refuse(id_, gateway.desk.refusal(verdict))
            case RunExec(command, words):
                exec_ = gateway.execs.admit(ExecAsk(command, words, principal.name, sender=self._connection.id))
                if isinstance(exec_, Problem):
                    self._dialect.refuse(id_, exec_)
                    return
                self._dialect.prompts.asked[id_] = exec_
                exec_.refused.append(partial(self._exec_refused, id_))
                exec_.finished.append(partial(self._exec_finished, id_))

    def _exec_refused(self, id_: RequestId, fault: Problem) -> None:
        self._dialect.prompts.asked.pop(id_, None)
        self._dialect.refuse(id_, fault)

    def _exec_finished(self, id_: RequestId, exec_: Exec) -> None:
        self._dialect.prompts.asked.pop(id_, None)
        assert exec_.ended is not None  # noqa: S101 - that is why this is called
        if exec_.ended.reason == "draining":
            self._connection.send(answer(id_, exec_.ended, self._dialect.reasons()))
        else:
            self._dialect.answer(id_, once(exec_))

    def kill(self, id_: RequestId, ask: KillAsk) -> None:
        killed = self._gateway.control.kill(self._connection.principal, ask.id)
        self._dialect.refuse(id_, killed) if isinstance(killed, Problem) else self._dialect.answer(id_, {})

    def _may(self, id_: RequestId, name: str) -> bool:
        """Whether this principal may do what the command of that name does; if not, refuse it and note it."""
        principal, command = self._connection.principal, BUILT_INS[name]
        if may(principal.role, command.role):
            return True
        refusal = Refusal("forbidden", f"this takes the role {command.role.value}", command)
        log_refusal(refusal, principal.name)
        self._dialect.refuse(id_, problem(refusal.reason, refusal.message))
        return False

    def drain(self, id_: RequestId, ask: DrainAsk) -> None:
        if self._may(id_, "drain"):
            self._gateway.coordinator.drain(
                Reason.OPERATOR, by=self._connection.principal.name, why=ask.why[:1000]
            )
            self._dialect.answer(id_, dict(self._gateway.status()))

    def undrain(self, id_: RequestId, ask: UndrainAsk) -> None:
        if not self._may(id_, "undrain"):
            return
        if ask.reason not in {reason.value for reason in Reason}:
            self._dialect.refuse(
                id_, problem("invalid_params", f"params.reason: there is no reason {ask.reason[:100]!r}")
            )
            return
        self._gateway.control.undrain(Reason(ask.reason))
        self._dialect.answer(id_, dict(self._gateway.status()))

    def restart(self, id_: RequestId, _: Nothing) -> None:
        if self._may(id_, "restart"):
            self._gateway.control.restart(
                self._connection.principal.name,
                lambda message: self._dialect.answer(id_, {"message": message}),
                lambda fault: self._dialect.refuse(id_, fault),
            )
