"""The least that can prompt over `/acp`, for benchmarks."""

from __future__ import annotations

import json

import trio_websocket


class Client:
    """One connection; one request at a time."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection) -> None:
        self.websocket = websocket
        self.ids = 0

    async def send(self, method: str, params: dict) -> int:
        """Send a request and return its id."""
        self.ids += 1
        frame = {"jsonrpc": "2.0", "id": self.ids, "method": method, "params": params}
        await self.websocket.send_message(json.dumps(frame))
        return self.ids

    async def answer(self, id_: int) -> dict:
        """Read up to the result of this request, and return it."""
        while True:
            frame = json.loads(await self.websocket.get_message())
            if frame.get("id") == id_ and "method" not in frame:
                return frame["result"]

    async def call(self, method: str, params: dict) -> dict:
        return await self.answer(await self.send(method, params))

    async def new_session(self) -> str:
        return (await self.call("session/new", {"cwd": "/", "mcpServers": []}))["sessionId"]

    async def prompt(self, session: str, text: str) -> int:
        """Send a prompt and return the request's id."""
        block = {"type": "text", "text": text}
        return await self.send("session/prompt", {"sessionId": session, "prompt": [block]})
