"""The way of a client to a gateway in memory, which can go down and come up again."""

from __future__ import annotations

from functools import partial

import trio

from gateway_trio.client import connect
from gateway_trio.config import parse_config
from gateway_trio.core.jsonrpc import CLOSES
from gateway_trio.server import serve
from gateway_trio.testing import MemoryListener, ScriptedAgent


class Door:
    """The way to a gateway in memory, which may be another one later, or none. `tries` are when it was taken."""

    def __init__(self, nursery):
        self.listener = None
        self.gateway = None
        self.tries = []
        self._nursery = nursery

    async def serve(self, config="", agent=None, **more):
        """Start a gateway, which is reached from now on."""
        self.listener = MemoryListener()
        config = parse_config(config, environ={})
        serving = partial(serve, config, agent=agent or ScriptedAgent(), listeners=[self.listener], **more)
        self.gateway = await self._nursery.start(serving)

    async def restart(self):
        """Let the gateway go down as for a restart; nobody listens then."""
        self.gateway.drain("restart", by="the test")
        self.listener = None
        await self.gateway.closed.wait()

    async def open(self):
        self.tries.append(trio.current_time())
        if self.listener is None:
            raise ConnectionRefusedError("nobody listens")
        return await self.listener.connect()

    def connect(self, **more):
        return connect("ws://localhost", open_stream=self.open, **more)

    def close_connections(self, why):
        for connection in list(self.gateway.connections):
            connection.close(CLOSES[why])
