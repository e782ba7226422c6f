"""What the Autobahn test suite talks to: our front door, guard and connection, with a dialect that echoes.

The gateway itself speaks ACP and `/chat`, neither of which says a message again as it came. So this program puts a
dialect of its own behind the same door: the request head, the handshake, the guard, trio-websocket, the reader, the
writer, its limits and the close are the gateway's. It has no turns, no execs and no drain.

`python echo_gateway.py` prints `port N` and serves until it is killed.
"""

from __future__ import annotations

from collections import deque

import trio

from gateway_trio import Config, Gateway, MemoryStore
from gateway_trio.config import ServerConfig
from gateway_trio.connection import Connection
from gateway_trio.core.jsonrpc import Close
from gateway_trio.front_door import FrontDoor
from gateway_trio.outbox import Frame
from gateway_trio.testing import ScriptedAgent

#: The suite's largest message has 16 MiB (cases 9.1.6 and 9.2.6).
MOST_BYTES = 16 * 2**20


class Echo:
    """Sends each message back. Its queue is bounded by what one client of the suite sends ahead: a test program."""

    def __init__(self, connection: Connection, query: str) -> None:
        self._connection = connection
        self._messages: deque[Frame] = deque()

    async def start(self) -> None:
        """Nothing: the client begins."""

    def received(self, message: Frame) -> None:
        self._messages.append(message)
        self._connection.poke()

    def pull(self) -> Frame | None:
        return self._messages.popleft() if self._messages else None

    @property
    def fetching(self) -> bool:
        return False

    def phase_notice(self) -> str | None:
        return None

    def goodbye(self, close: Close) -> str | None:
        return None

    def commands_changed(self) -> None:
        """There are none."""

    def detach(self) -> None:
        self._messages.clear()


async def main() -> None:
    config = Config(server=ServerConfig(port=0, max_message_bytes=MOST_BYTES))
    gateway = Gateway(config, ScriptedAgent(), MemoryStore())
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    gateway.coordinator.opened()
    async with trio.open_nursery() as connections:
        print(f"port {listeners[0].socket.getsockname()[1]}", flush=True)
        await FrontDoor(gateway, {"/": Echo}).serve(listeners, connections)


if __name__ == "__main__":
    trio.run(main)
