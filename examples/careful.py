"""A gateway whose agent asks before it acts. Nothing is really done: try it without fear.

Run it, then `npx -y wscat -c ws://127.0.0.1:8765/chat` in two terminals. Whoever answers first, with `/allow` or
`/deny`, decides; an ACP client shows its user the three options.
"""

from functools import partial

import trio
from embed import drain_at_signal  # the other example, in this folder

from gateway_trio import Config, Emit, TextDelta, Turn, serve
from gateway_trio.agents import PermissionOption, ToolCall, ToolUpdate
from gateway_trio.config import ServerConfig

OPTIONS = (
    PermissionOption("once", "Allow", "allow_once"),
    PermissionOption("always", "Allow in this session", "allow_always"),
    PermissionOption("no", "Deny", "reject_once"),
)


class Careful:
    """Does what the prompt says, if somebody allows it."""

    def __init__(self) -> None:
        self._trusted: set[str] = set()  # sessions in which somebody has said "always"

    async def run(self, turn: Turn, emit: Emit) -> None:
        tool = ToolCall(f"tool-{turn.id}", turn.text, kind="execute")
        await emit(tool)
        if turn.session_id not in self._trusted:
            decision = await turn.ask_permission(tool, OPTIONS)
            if not decision.allowed:
                await emit(ToolUpdate(tool.id, status="failed"))
                await emit(TextDelta(f"Not done: {'denied' if decision.option else decision.outcome}."))
                return
            if decision.option is not None and decision.option.id == "always":
                self._trusted.add(turn.session_id)
        await emit(ToolUpdate(tool.id, status="completed"))
        await emit(TextDelta(f"Done: {turn.text}"))


async def main(port: int = 8765) -> None:
    async with trio.open_nursery() as nursery:
        config = Config(server=ServerConfig(port=port))
        gateway = await nursery.start(partial(serve, config, agent=Careful()))
        nursery.start_soon(drain_at_signal, gateway)
        print(f"listening on {gateway.addresses[0]}", flush=True)
        await gateway.closed.wait()
        print(f"drained in {gateway.report.total_seconds:.3f} s", flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
