"""The exec runner: who may run how many commands, what is told and what is audited of each.

The process itself is in `execs.py`. Here is everything around it: admission and the slots, in one synchronous
place; the audit row before the spawn and the one at the end; the events in the session, or for a command that
belongs to no session, its collected output; and the way down.
"""

from __future__ import annotations

import os
import time
from collections import deque
from typing import Any

import trio

from gateway_trio import execs
from gateway_trio.config import Config
from gateway_trio.config import secrets as config_secrets
from gateway_trio.core.events import Change, Kind, Message, Prompt
from gateway_trio.core.facts import closing_line
from gateway_trio.core.jsonrpc import Problem, problem
from gateway_trio.core.phases import Lane
from gateway_trio.debts import Debts
from gateway_trio.drain import Coordinator
from gateway_trio.execs import Facts, Limits, Spawn, Status, kill_at_once
from gateway_trio.log import bind, get_logger
from gateway_trio.quick import STATES, Exec, ExecAsk, to_wire
from gateway_trio.saver import Saver
from gateway_trio.store import AddExec, EndExec, Store, StoreUnavailable

__all__ = ["ExecRunner"]

log = get_logger("execs")


class ExecRunner:
    """All execs of a gateway. `nursery` is the tree's `execs`, set when it opens."""

    nursery: trio.Nursery

    def __init__(self, config: Config, coordinator: Coordinator, store: Store, saver: Saver) -> None:
        self._coordinator = coordinator
        self._store = store
        self._debts = Debts(store, saver.add)
        self._running: dict[str, Exec] = {}
        self._waiting: deque[Exec] = deque()
        self._secrets: tuple[str, ...] = ()
        self.use(config)

    def use(self, config: Config) -> None:
        """Take another config, for what starts from now on. What was a secret once is one to the end."""
        self.config = config
        self._secrets = config_secrets(config, os.environ, self._secrets)[0]

    # --- admission: one synchronous step ---

    def admit(self, ask: ExecAsk) -> Exec | Problem:
        """Take a command or refuse it. One that is taken is counted and its task is started."""
        if not self._coordinator.admits(Lane.EXEC):
            return problem("draining", "the gateway closes; nothing was run", admitted=False)
        limits = self.config.exec
        new = Exec(ask)
        if len(self._running) < limits.max_running:
            self._give_slot(new)
        elif len(self._waiting) < limits.max_waiting:
            self._waiting.append(new)
        else:
            full = f"{limits.max_running} commands run and {limits.max_waiting} wait; nothing was run"
            return problem("busy", full, admitted=False)
        self._coordinator.execs.add(new)
        self._coordinator.poke()
        self.nursery.start_soon(self._run, new)
        return new

    def _give_slot(self, exec_: Exec) -> None:
        self._running[exec_.id] = exec_
        exec_.ready.set()

    def _leave(self, exec_: Exec) -> None:
        """Free the slot, or the place in the queue, and let the next one in."""
        if exec_ in self._waiting:
            self._waiting.remove(exec_)
        if self._running.pop(exec_.id, None) is not None and self._waiting:
            self._give_slot(self._waiting.popleft())
        self._coordinator.execs.discard(exec_)
        self._coordinator.poke()

    # --- one exec ---

    async def _run(self, exec_: Exec) -> None:
        ask = exec_.ask
        bind(session=None if ask.session is None else ask.session.id, exec=exec_.id, principal=ask.principal)
        facts = Facts(Status.UNKNOWN, None, None, 0.0, 0, 0)
        stored = False
        try:
            stored = await self._begin(exec_)
            if stored:
                if exec_.state == "queued":
                    await exec_.ready.wait()
                facts = await self._run_process(exec_)
        finally:
            self._coordinator.timeline.exec_ended(killed=facts.status in (Status.DEADLINE, Status.UNKNOWN))
            if stored:
                with trio.CancelScope(shield=True, deadline=self._limit()):
                    await self._end(exec_, facts)
            exec_.close()
            if stored and ask.session is not None:
                ask.session.settle(ask.key, exec_)
            self._leave(exec_)

    async def _begin(self, exec_: Exec) -> bool:
        """Write the audit row, and in a session the prompt; without it nothing is run."""
        ask = exec_.ask
        where = None if ask.session is None else ask.session.id
        row = AddExec(
            exec_.id, where, ask.principal, ask.command.name, ask.words, exec_.began, ask.key, ask.digest
        )

        begins = exec_.ready.is_set() and exec_.stop.status is None
        if begins:
            exec_.state = "running"

        def bodies(seq: int) -> list[Prompt | Change]:
            prompt = Prompt(ask.text, "exec", sender=ask.sender)
            position = self._waiting.index(exec_) if exec_ in self._waiting else 0
            queued = self._change(exec_, "queued", seq=seq, position=position)
            # One that has its slot needs no second transaction to say that it runs.
            return [prompt, queued, *([self._change(exec_, exec_.state, seq=seq)] if begins else [])]

        try:
            with trio.CancelScope(shield=True, deadline=self._limit()) as limit:
                if ask.session is None:
                    await self._store.commit((row,))
                else:
                    exec_.seq = (await ask.session.record(exec_.id, bodies, row, admin=exec_.admin))[0].number
                return True
            if limit.cancelled_caught and ask.session is None:  # it may be in the audit, as one that runs
                never = Facts(Status.SPAWN_FAILED, None, None, 0.0, 0, 0, error="the store was too slow")
                self._debts.owe(EndExec(exec_.id, to_wire(exec_, never), time.time()))
        except StoreUnavailable as fault:
            log.warning("exec not stored", id=exec_.id, error=str(fault))
        refusal = problem("store_unavailable", "the command could not be recorded; it was not run", admitted=False)
        if ask.session is not None:
            ask.session.forget(ask.key, exec_)
        for answer in exec_.refused:
            answer(refusal)
        return False

    async def _run_process(self, exec_: Exec) -> Facts:
        if exec_.stop.status is not None:  # stopped while it waited
            return Facts(exec_.stop.status, None, None, 0.0, 0, 0)
        command, words = exec_.ask.command, exec_.ask.words
        if command.argv is not None:
            argv = (*command.argv, *words)
        else:
            argv = execs.shell_argv(command.name, command.command or "", words)
        spawn = Spawn(exec_.id, argv, execs.environment(os.environ, command.env), command.cwd)
        limits = Limits(
            command.timeout_seconds, self.config.exec.term_seconds, command.background, secrets=self._secrets
        )
        if exec_.state == "queued":
            exec_.state = "running"
            if (session := exec_.ask.session) is not None:
                await session.put(exec_.id, lambda _: [self._change(exec_, "running")], admin=exec_.admin)
        return await execs.run_exec(spawn, limits, exec_.stop, lambda text: self._say(exec_, text))

    async def _say(self, exec_: Exec, text: str) -> None:
        exec_.last = text[-1:] or exec_.last
        session = exec_.ask.session
        if session is None:
            exec_.output.append(text)
            return
        body = Message(Kind.OUTPUT)
        await session.say(
            exec_.id, Kind.OUTPUT, text, lambda: session.put(exec_.id, lambda _: [body], admin=exec_.admin)
        )

    async def _end(self, exec_: Exec, facts: Facts) -> None:
        """Say how it ended, store that, and answer. Called in a shield with a limit."""
        wire = to_wire(exec_, facts)
        never_ran = facts.status is Status.DEADLINE and exec_.state == "queued"
        exec_.state = STATES[facts.status]
        exec_.ended = change = self._change(
            exec_,
            exec_.state,
            facts=wire,
            reason="draining" if never_ran else facts.status.value,
            stop_reason="cancelled" if facts.status is Status.CANCELLED else "end_turn",
        )
        self._note(exec_, facts)
        row, session = EndExec(exec_.id, wire, time.time()), exec_.ask.session
        try:
            line = None if session is None else closing_line(wire, silent=not exec_.last)
            if line is not None:  # for people, in a session; a program has the facts
                await self._say(exec_, line if exec_.last in ("", "\n") else f"\n{line}")
            if session is not None:
                entries = await session.put(exec_.id, lambda _: [change], row, admin=exec_.admin)
            else:
                await self._debts.put(row)
        except trio.Cancelled:
            if session is not None:
                entries = session.insist(exec_.id, lambda _: [change], row, admin=exec_.admin)
            raise
        finally:
            if session is not None:
                exec_.ended_at = entries[0].number
            for answer in exec_.finished:
                answer(exec_)

    def _note(self, exec_: Exec, facts: Facts) -> None:
        """Log and count how it ended."""
        log.info(
            "exec",
            id=exec_.id,
            command=exec_.ask.command.name,
            principal=exec_.ask.principal,
            status=facts.status.value,
            code=facts.exit_code,
            seconds=round(facts.seconds, 3),
        )
        had_process = facts.exit_code is not None or facts.signal is not None
        self._coordinator.tally.exec_ended(facts.status, facts.seconds if had_process else None)

    def _change(self, exec_: Exec, state: str, **more: Any) -> Change:
        ends = state not in ("queued", "running")
        seq = more.pop("seq", exec_.seq)
        return Change("exec", exec_.id, state, seq, ends, exec_.ask.key, **more)

    def _limit(self) -> float:
        """When a commit is given up: no store may hold anything longer than `cleanup_seconds`."""
        return trio.current_time() + self.config.drain.cleanup_seconds

    # --- what others ask of execs ---

    def list(self) -> list[Exec]:
        """Return those that run or wait, oldest first."""
        return [*self._running.values(), *self._waiting]

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return len(self._waiting)

    def find(self, exec_id: str) -> Exec | None:
        return next((exec_ for exec_ in self.list() if exec_.id == exec_id), None)

    def stop(self, exec_: Exec, status: Status) -> None:
        """End one that runs or waits; the first status stands."""
        exec_.stop(status)
        exec_.ready.set()

    def kill_now(self) -> None:
        """Kill every process of every exec without waiting, for a program that is about to exit."""
        for exec_ in self._running.values():
            kill_at_once(exec_.id, exec_.stop)

    def end_all(self) -> None:
        """The one deadline: those that wait are refused, those that run are ended."""
        for exec_ in self.list():
            self.stop(exec_, Status.DEADLINE)
