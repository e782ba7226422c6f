"""The control commands: what a person types, and what the requests of the same names do.

None of them has an agent in it, and none waits, but `/restart` and `/reload` for the config file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway_trio.agents import HistoryItem
from gateway_trio.config import ConfigError
from gateway_trio.core.commands import Role
from gateway_trio.core.events import Update
from gateway_trio.core.history import NEW_CONVERSATION
from gateway_trio.core.jsonrpc import Problem, problem
from gateway_trio.core.phases import Phase, Reason
from gateway_trio.core.text import short
from gateway_trio.execs import Status
from gateway_trio.history import Past
from gateway_trio.log import get_logger
from gateway_trio.permissions import decide
from gateway_trio.store import StoreUnavailable

if TYPE_CHECKING:
    from gateway_trio.desk import Asker, Prompted
    from gateway_trio.gateway import Gateway
    from gateway_trio.quick import Exec
    from gateway_trio.tokens import Principal

__all__ = ["Control"]

log = get_logger("control")

_CHECKED = "the config is being checked for somebody else just now"
_SHOWN = 10  #: items of the history, where none is asked for
_MOST = 100  #: and at most
_SHORT = 200  #: characters of one of them, and of what somebody typed


class Control:
    """Carries out control commands for whoever may; the catalog has asked for the role already."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._texts: Mapping[str, Callable[[Prompted, str], str]] = {
            "help": self._help,
            "commands": self._help,
            "status": self._status,
            "whoami": self._whoami,
            "history": self._history,
            "ps": self._ps,
            "stop": self._stop,
            "kill": self._kill,
            "allow": partial(decide, allow=True),
            "deny": partial(decide, allow=False),
            "drain": self._drain,
            "undrain": self._undrain,
        }

    def run(self, name: str, rest: str, asker: Asker, prompted: Prompted) -> None:
        """Answer a built-in of lane control."""
        waiting = {"restart": self.restart, "reload": self.reload}
        if name in waiting:
            waiting[name](prompted.sender.principal.name, asker.notice, asker.refuse)
        else:
            asker.notice(self._texts[name](prompted, rest))

    # --- what people and programs share ---

    def execs_of(self, principal: Principal) -> list[Exec]:
        """Return the execs that run or wait and that this principal may end, oldest first."""
        return [
            exec_
            for exec_ in self._gateway.execs.list()
            if principal.role is Role.ADMIN or exec_.ask.principal == principal.name
        ]

    def kill(self, principal: Principal, exec_id: str) -> Exec | Problem:
        """End an exec: one's own, or any for an admin."""
        exec_ = self._gateway.execs.find(exec_id)
        if exec_ is None:
            return problem("unknown_exec", f"no exec {short(exec_id, _SHORT)} runs; /ps lists those that do")
        if principal.role is not Role.ADMIN and exec_.ask.principal != principal.name:
            log.info("refused", command="kill", exec=exec_id, principal=principal.name, reason="forbidden")
            return problem("forbidden", f"exec {exec_id} is not yours")
        self._gateway.execs.stop(exec_, Status.KILLED)
        return exec_

    def undrain(self, reason: Reason) -> bool:
        """Take a reason away; return whether that changed anything."""
        return self._gateway.undrain(reason.value)

    def restart(self, by: str, done: Callable[[str], None], refuse: Callable[[Problem], None]) -> None:
        """Check what would come up, then drain for a restart that `by` asked for. Answers after the check."""
        gateway = self._gateway

        async def check_and_drain() -> None:
            fault = await gateway.check_restart()
            if fault is not None:
                refuse(problem("conflict", f"not restarted, {fault}"))
                return
            gateway.coordinator.drain(Reason.RESTART, by=by)
            lost = "" if gateway.store.durable else " What is in memory only, sessions too, will be gone."
            done(f"The gateway restarts.{lost}")

        if not gateway.background(check_and_drain):
            refuse(problem("busy", _CHECKED))

    def reload(self, by: str, done: Callable[[str], None], refuse: Callable[[Problem], None]) -> None:
        """Read the config again and let it hold, as `by` asked. A fault changes nothing and is told."""
        gateway = self._gateway

        async def read_and_reload() -> None:
            try:
                later = gateway.reload(await gateway.read_config())
            except ConfigError as fault:
                log.warning("not reloaded", by=by, faults=[str(f) for f in fault.faults])
                refuse(problem("conflict", f"not reloaded, nothing has changed:\n{fault}"))
                return
            log.info("reloaded", by=by, later=list(later))
            rest = f" At the next restart only: {', '.join(later)}." if later else ""
            done(f"Reloaded.{rest}")

        if not gateway.background(read_and_reload):
            refuse(problem("busy", _CHECKED))

    def begin_anew(self, asker: Asker, prompted: Prompted) -> None:
        """`/new`: no earlier prompt is in the history from now on. Refused while a turn runs or waits."""
        session = prompted.session
        if not session.conversation.idle:
            asker.refuse(problem("busy", "a turn runs or waits; /stop ends it", admitted=False))
            return

        async def record() -> None:
            try:
                await session.record("new", lambda _: [Update(NEW_CONVERSATION)])
            except StoreUnavailable as fault:
                asker.refuse(problem("store_unavailable", str(fault), admitted=False))
            else:
                asker.notice("A new conversation.")

        if not prompted.sender.spawn(record):
            asker.refuse(problem("busy", "too many requests wait", admitted=False))

    # --- what people read ---

    def _help(self, prompted: Prompted, _: str) -> str:
        commands = self._gateway.config.catalog.visible(prompted.sender.principal.role)
        width = max(len(command.usage) for command in commands)
        lines = [f"{command.usage:<{width}}  {command.description}".rstrip() for command in commands]
        return "\n".join([*lines, "//text sends /text to the agent. Anything else is a prompt."])

    def _status(self, prompted: Prompted, _: str) -> str:
        status = self._gateway.status()
        waiting = len(prompted.session.conversation.queue)
        running = prompted.session.conversation.running
        lines = [
            f"phase {status['phase']}, {_count(status['turns'], 'turn')}, {_count(status['execs'], 'exec')}",
            f"this session: {'a turn runs' if running else 'no turn runs'}, {waiting} waiting",
            _breaker(status["breaker"]),
        ]
        if status["remainingMs"] is not None:
            lines[0] += f", at most {status['remainingMs'] / 1000:.0f} s left in this phase"
        for reason, asked in status["asked"].items():
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(asked["at"]))
            why = f": {asked['why']}" if asked["why"] else ""
            lines.append(f"draining because of {reason}, asked for by {asked['by']} at {when}{why}")
        return "\n".join(lines)

    def _whoami(self, prompted: Prompted, _: str) -> str:
        principal = prompted.sender.principal
        session = prompted.session.name or prompted.session.id
        return f"{principal.name}, role {principal.role.value}, session {session}"

    def _history(self, prompted: Prompted, rest: str) -> str:
        items = Past(prompted.session.log)[-min(int(rest or _SHOWN), _MOST) :]
        return "\n".join(map(_item, items)) or "Nothing was said yet."

    def _ps(self, prompted: Prompted, _: str) -> str:
        seen = self.execs_of(prompted.sender.principal)
        now = time.time()
        lines = [
            f"{e.id}  /{e.ask.command.name}  {e.state}  {now - e.began:.0f} s  {e.ask.principal}" for e in seen
        ]
        return "\n".join(lines) or "No exec runs."

    def _stop(self, prompted: Prompted, _: str) -> str:
        running, dropped = self._gateway.turns.stop(prompted.session)
        if running is None and not dropped:
            return "There is nothing to stop."
        lines = ["Stopping the turn that runs."] if running else []
        lines += [f"Dropped: {short(turn.ask.text, _SHORT)}" for turn in dropped]
        return "\n".join(lines)

    def _kill(self, prompted: Prompted, rest: str) -> str:
        killed = self.kill(prompted.sender.principal, rest)
        return (
            killed.message if isinstance(killed, Problem) else f"Killing {killed.id} (/{killed.ask.command.name})."
        )

    def _drain(self, prompted: Prompted, rest: str) -> str:
        coordinator = self._gateway.coordinator
        coordinator.drain(Reason.OPERATOR, by=prompted.sender.principal.name, why=rest)
        return "Draining: no new turn starts until /undrain."

    def _undrain(self, _: Prompted, rest: str) -> str:
        reason = Reason(rest or "operator")
        if not self.undrain(reason):
            return f"There is no drain for the reason {reason.value} that can be taken back."
        if self._gateway.coordinator.phase is Phase.OPEN:
            return "Open again."
        left = sorted(r.value for r in self._gateway.coordinator.state.reasons)
        return f"Still draining because of {', '.join(left)}."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _breaker(breaker: Mapping[str, Any]) -> str:
    left = breaker["nextProbeMs"]
    when = "" if left is None else f", the next probe of the backend in {left / 1000:.0f} s"
    return f"breaker {breaker['state']}{when}"


def _item(item: HistoryItem) -> str:
    who = "you" if item.role == "user" else "agent"
    return f"{who}: {short(item.text, _SHORT)}{' [interrupted]' if item.interrupted else ''}"
