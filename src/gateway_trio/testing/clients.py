"""Clients of a gateway in memory, one for each way to speak."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import trio
import trio.testing
import trio_websocket
from attrs import define, field

from gateway_trio.core import acp
from gateway_trio.core.jsonrpc import notification, request, result

__all__ = ["AcpClient", "AcpError", "ChatClient", "ours_of"]


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
        id_ = self._ids = self._ids + 1  # kept: while this one is sent, another task may ask
        self._waiting[id_] = _Waiting()
        await self.send(request(id_, method, params or {}))
        return id_

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
