"""For tests of agents and of programs that embed a gateway: everything in memory, so that virtual time works.

    async with open_gateway(agent=ScriptedAgent({"hi": ["hel", 1.0, "lo"]})) as lab:
        client = await lab.acp()
        session = await client.new_session()
        answer = await client.prompt(session, "hi")

Under `trio.testing`'s autojump clock this takes no time. Quick commands run real processes, and time jumps while
a thread works; where both are wanted give the clock an `autojump_threshold`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import trio
import trio.testing
import trio_websocket
from attrs import define, field, frozen

from gateway_trio.agents import (
    ALLOW_OR_REJECT,
    Agent,
    Decision,
    Emission,
    Emit,
    PermissionOption,
    TextDelta,
    ToolCall,
    Turn,
)
from gateway_trio.config import Config
from gateway_trio.core import acp
from gateway_trio.core.jsonrpc import notification, request, result
from gateway_trio.gateway import Gateway
from gateway_trio.memory_store import MemoryStore
from gateway_trio.server import serve
from gateway_trio.store import Change, Store, StoreUnavailable
from gateway_trio.store_check import check_store

__all__ = [
    "STUCK",
    "AcpClient",
    "AcpError",
    "AskFor",
    "ChatClient",
    "FailingStore",
    "KeptStore",
    "Lab",
    "MemoryListener",
    "ScriptedAgent",
    "check_store",
    "open_gateway",
]


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


class KeptStore(MemoryStore):
    """A durable store in memory: one gateway after another may use it. `left` is what a crash would leave."""

    durable = True

    def __init__(self) -> None:
        super().__init__(keep_events=1_000_000)

    def left(self) -> KeptStore:
        """Return a store with what is in this one now."""
        store = KeptStore()
        store.take_over(self)
        return store


class FailingStore(MemoryStore):
    """A store that fails while `failing` is set, and does not answer commits between `stall` and `go`.

    `keep_events` is `MemoryStore`'s. With `durable` a gateway relies on it as on one on disk.
    """

    def __init__(self, keep_events: int = 0, *, durable: bool = False) -> None:
        super().__init__(keep_events=keep_events)
        self.durable = durable
        self.failing = False
        self._happens = False
        self._given_up: list[Sequence[Change]] = []
        self._in_order = trio.StrictFIFOLock()
        self._going = trio.Event()
        self._going.set()

    def stall(self, *, happens: bool = False) -> None:
        """Let commits wait until `go`; with `happens`, one that is given up meanwhile is carried out after all."""
        self._going = trio.Event()
        self._happens = happens

    def go(self) -> None:
        """Let commits through again."""
        self._going.set()

    async def commit(self, changes: Sequence[Change]) -> None:
        try:
            async with self._in_order:
                await self._going.wait()
                while self._given_up:
                    await super().commit(self._given_up.pop(0))
                if self.failing:
                    raise StoreUnavailable("no space left on device")
                await super().commit(changes)
        except trio.Cancelled:
            if self._happens:
                self._given_up.append(changes)
            raise


class MemoryListener(trio.abc.Listener[trio.StapledStream[Any, Any]]):
    """A listener to whose streams one connects in memory."""

    def __init__(self) -> None:
        self._connecting, self._accepting = trio.open_memory_channel[Any](1000)

    async def connect(self) -> trio.StapledStream[Any, Any]:
        """Return the client's end of a new stream. Raises `trio.BrokenResourceError` once it is closed."""
        ours, theirs = trio.testing.memory_stream_pair()
        await self._connecting.send(theirs)
        return ours

    async def accept(self) -> Any:
        try:
            return await self._accepting.receive()
        except trio.ClosedResourceError:
            raise trio.ClosedResourceError("the listener is closed") from None

    async def aclose(self) -> None:
        """Accept no more, and close what was not accepted."""
        with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError):
            while True:
                await trio.aclose_forcefully(self._accepting.receive_nowait())
        self._accepting.close()
        await trio.lowlevel.checkpoint()


class ChatClient:
    """A `/chat` client."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection) -> None:
        self.websocket = websocket

    async def send(self, text: str) -> None:
        await self.websocket.send_message(text)

    async def receive(self) -> str:
        """Return the next frame. Raises `trio_websocket.ConnectionClosed` at the end."""
        return str(await self.websocket.get_message())

    async def until(self, *parts: str) -> list[str]:
        """Return all frames up to one that contains every part."""
        frames = [await self.receive()]
        while not all(part in frames[-1] for part in parts):
            frames.append(await self.receive())
        return frames

    async def close_code(self) -> int:
        """Read to the end and return the code with which the gateway closed."""
        try:
            while True:
                await self.receive()
        except trio_websocket.ConnectionClosed as closed:
            return closed.reason.code if closed.reason else 1006


class AcpError(Exception):
    """An error that the gateway answered; `code`, `message` and `data` are JSON-RPC's."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(error["message"])
        self.code: int = error["code"]
        self.data: Mapping[str, Any] = error.get("data") or {}

    @property
    def reason(self) -> str:
        return str(self.data.get("reason"))


@define
class _Waiting:
    event: trio.Event = field(factory=trio.Event)
    message: Mapping[str, Any] | None = None


class AcpClient:
    """An `/acp` client that keeps every frame. `frames` has them all, parsed, in their order."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection) -> None:
        self.websocket = websocket
        self.frames: list[dict[str, Any]] = []
        self.closed: trio_websocket.CloseReason | None = None
        self._ids = 0
        self._waiting: dict[int, _Waiting] = {}
        self._news = trio.Event()

    async def read(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take in frames until the connection closes."""
        task_status.started()
        try:
            while True:
                frame = json.loads(await self.websocket.get_message())
                self.frames.append(frame)
                if "method" not in frame and (waiting := self._waiting.get(frame.get("id"))):
                    waiting.message = frame
                    waiting.event.set()
                self._news.set()
                self._news = trio.Event()
        except trio_websocket.ConnectionClosed as closed:
            self.closed = closed.reason
        finally:
            self._news.set()
            for waiting in self._waiting.values():
                waiting.event.set()

    async def send(self, frame: Mapping[str, Any] | str) -> None:
        text = frame if isinstance(frame, str) else json.dumps(frame)
        await self.websocket.send_message(text)

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        await self.send(notification(method, params))

    async def reply(self, id_: Any, value: Any) -> None:
        """Answer a request of the gateway's with this result."""
        await self.send(result(id_, value))

    async def select(self, asked: Mapping[str, Any], option_id: str) -> None:
        """Answer `session/request_permission`, the frame of which is `asked`, with this option."""
        await self.reply(asked["id"], {"outcome": {"outcome": "selected", "optionId": option_id}})

    async def until_asked(self, nth: int = 1) -> dict[str, Any]:
        """Return the nth frame that asks for permission."""
        left = iter(range(nth - 1, -1, -1))
        return await self.until(lambda f: f.get("method") == "session/request_permission" and next(left) == 0)

    async def ask(self, method: str, params: Mapping[str, Any] | None = None) -> int:
        """Send a request and return its id."""
        self._ids += 1
        self._waiting[self._ids] = _Waiting()
        await self.send(request(self._ids, method, params or {}))
        return self._ids

    async def answer(self, id_: int) -> dict[str, Any]:
        """Wait for the answer to a request. Raises `AcpError`, or EOFError if the connection closed first."""
        waiting = self._waiting[id_]
        await waiting.event.wait()
        if waiting.message is None:
            raise EOFError(f"closed without an answer: {self.closed}")
        if "error" in waiting.message:
            raise AcpError(waiting.message["error"])
        return dict(waiting.message["result"] or {})

    async def call(self, method: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return await self.answer(await self.ask(method, params))

    async def initialize(self, *, ours: bool = True) -> dict[str, Any]:
        meta: dict[str, Any] = {"_meta": {acp.OURS: {}}} if ours else {}
        return await self.call("initialize", {"protocolVersion": 1, "clientCapabilities": meta})

    async def new_session(self) -> str:
        return str((await self.call("session/new", {"cwd": "/", "mcpServers": []}))["sessionId"])

    async def ask_prompt(self, session: str, text: str, **ours: Any) -> int:
        """Send a prompt and return the request's id; `ours` goes into `_meta`."""
        params: dict[str, Any] = {"sessionId": session, "prompt": [{"type": "text", "text": text}]}
        if ours:
            params["_meta"] = {acp.OURS: ours}
        return await self.ask("session/prompt", params)

    async def prompt(self, session: str, text: str, **ours: Any) -> dict[str, Any]:
        return await self.answer(await self.ask_prompt(session, text, **ours))

    async def until(self, test: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Return the first frame, of those there are or come, for which the test holds."""
        seen = 0
        while True:
            for frame in self.frames[seen:]:
                seen += 1
                if test(frame):
                    return frame
            if self.closed is not None:
                raise EOFError(f"closed before such a frame came: {self.closed}")
            await self._news.wait()

    async def until_state(self, state: str) -> dict[str, Any]:
        """Return the first change of a turn's or exec's state to this one."""

        def is_it(frame: dict[str, Any]) -> bool:
            ours = ours_of(frame)
            return any(ours.get(work, {}).get("state") == state for work in ("turn", "exec"))

        return await self.until(is_it)

    def text(self, kind: str = "agent_message_chunk") -> str:
        """Return what all chunks of a kind say together, each message put together by its offsets."""
        messages: dict[str, str] = {}
        for frame in self.frames:
            update = (frame.get("params") or {}).get("update") or {}
            if update.get("sessionUpdate") == kind:
                at = ours_of(frame).get("at", 0)
                before = messages.get(update["messageId"], "")
                messages[update["messageId"]] = before[:at] + update["content"]["text"]
        return "".join(messages.values())


def ours_of(frame: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what an update carries under `_meta["gateway-trio"]`."""
    update = (frame.get("params") or {}).get("update") or {}
    ours: Mapping[str, Any] = (update.get("_meta") or {}).get(acp.OURS) or {}
    return ours


@define
class Lab:
    """A gateway in memory and the way to connect to it."""

    gateway: Gateway
    listener: MemoryListener
    nursery: trio.Nursery

    async def websocket(self, path: str, *, token: str | None = None) -> trio_websocket.WebSocketConnection:
        stream: Any = await self.listener.connect()
        headers = [] if token is None else [(b"Authorization", f"Bearer {token}".encode())]
        return await trio_websocket.wrap_client_stream(
            self.nursery, stream, "localhost", path, extra_headers=headers
        )

    async def chat(self, session: str = "main", *, token: str | None = None) -> ChatClient:
        return ChatClient(await self.websocket(f"/chat?session={session}", token=token))

    async def acp(self, *, ours: bool = True, token: str | None = None) -> AcpClient:
        """Connect and initialize."""
        client = AcpClient(await self.websocket("/acp", token=token))
        await self.nursery.start(client.read)
        await client.initialize(ours=ours)
        return client


@contextlib.asynccontextmanager
async def open_gateway(
    config: Config | None = None, *, agent: Agent | None = None, store: Store | None = None, **more: Any
) -> AsyncIterator[Lab]:
    """Run a gateway in memory for the time of the block; at its end it is shut down with no grace.

    Raises what `serve` raises. `more` goes to `serve`.
    """
    listener = MemoryListener()
    async with trio.open_nursery() as clients:
        async with trio.open_nursery() as servers:
            running = partial(
                serve, config, agent=agent or ScriptedAgent(), store=store, listeners=[listener], **more
            )
            gateway: Gateway = await servers.start(running)
            yield Lab(gateway, listener, clients)
            gateway.drain("shutdown", by="the end of the block", grace_seconds=0)
        clients.cancel_scope.cancel()
