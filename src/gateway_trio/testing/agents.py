"""Agents that do what a script says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio
import trio.testing
from attrs import frozen

from gateway_trio.agents import (
    ALLOW_OR_REJECT,
    Decision,
    Emission,
    Emit,
    PermissionOption,
    TextDelta,
    ToolCall,
    Turn,
)

__all__ = ["STUCK", "AskFor", "ScriptedAgent", "Step"]


class _Stuck:
    """A step of a script that ignores cancellation until the agent is released."""


STUCK = _Stuck()


@frozen
class AskFor:
    """A step of a script that asks for permission. The decision is kept in the agent's `decisions`."""

    tool: ToolCall
    options: Sequence[PermissionOption] = ALLOW_OR_REJECT


Step = str | float | Emission | Exception | AskFor | _Stuck | Callable[[Turn, Emit], Awaitable[None]]


class ScriptedAgent:
    """Answers each prompt by a script.

    A step is a text to say, a number of seconds to sleep, an emission, an exception to raise, an `AskFor`, an
    async function of turn and emit, or `STUCK`. `scripts` has them by prompt; a prompt that is not in it is said
    again. `turns` are those that came, `running` counts those that have not ended, `decisions` are what `AskFor`
    got.

    `probes` has a script for each probe, in their order, of the steps that need no turn: seconds, an exception,
    `STUCK`. One that comes after them finds that the backend answers. `probed` are the times at which they came.
    """

    def __init__(
        self,
        scripts: Mapping[str, Sequence[Step]] | None = None,
        *,
        probes: Sequence[Sequence[float | Exception | _Stuck]] = (),
    ) -> None:
        self.scripts = dict(scripts or {})
        self.probes = list(probes)
        self.probed: list[float] = []
        self.turns: list[Turn] = []
        self.decisions: list[Decision] = []
        self.running = 0
        self._released = trio.Event()

    def release(self) -> None:
        """Let those that are stuck go on."""
        self._released.set()

    async def run(self, turn: Turn, emit: Emit) -> None:
        self.turns.append(turn)
        self.running += 1
        try:
            for step in self.scripts.get(turn.text, (turn.text,)):
                await self._take(step, turn, emit)
        finally:
            self.running -= 1

    async def probe(self) -> None:
        self.probed.append(trio.current_time())
        for step in self.probes.pop(0) if self.probes else ():
            await self._wait(step)

    async def _wait(self, step: float | Exception | _Stuck) -> None:
        match step:
            case Exception():
                raise step
            case _Stuck():
                with trio.CancelScope(shield=True):  # ignoring cancellation is what this is for
                    await self._released.wait()
            case seconds:
                await trio.sleep(seconds)

    async def _take(self, step: Step, turn: Turn, emit: Emit) -> None:
        match step:
            case str():
                await emit(TextDelta(step))
            case float() | int() | Exception() | _Stuck():
                await self._wait(step)
            case AskFor(tool, options):
                self.decisions.append(await turn.ask_permission(tool, options))
            case _ if callable(step):
                await step(turn, emit)
            case _:
                await emit(step)
