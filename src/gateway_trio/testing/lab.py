"""A gateway in memory, and the way to connect to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import trio
import trio.testing
import trio_websocket
from attrs import define

from gateway_trio.agents import (
    Agent,
)
from gateway_trio.config import Config
from gateway_trio.gateway import Gateway
from gateway_trio.server import serve
from gateway_trio.store import Store
from gateway_trio.testing.agents import ScriptedAgent
from gateway_trio.testing.clients import AcpClient, ChatClient

__all__ = ["Lab", "MemoryListener", "open_gateway"]


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
