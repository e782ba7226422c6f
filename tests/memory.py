"""A gateway in memory for tests of `/acp`: every frame of every client is held against ACP's schema."""

from __future__ import annotations

import contextlib
import json
from functools import partial

import trio
import trio.testing

from gateway_trio import testing
from gateway_trio.server import serve
from gateway_trio.testing import AcpClient, AcpError, MemoryListener, ScriptedAgent, ours_of
from schema import Checker

__all__ = ["Client", "Lab", "SlowListener", "acp_lab", "follows_its_outcome", "ours_of", "refused", "states"]


class Client(AcpClient):
    """An `AcpClient` that remembers what it sent, to check what it got."""

    def __init__(self, websocket):
        super().__init__(websocket)
        self.checker = Checker()
        self.checked = 0

    async def send(self, frame):
        text = frame if isinstance(frame, str | bytes) else json.dumps(frame)
        self.checker.sent(text)
        await self.websocket.send_message(text)

    def check(self) -> None:
        """Hold every frame against the schema."""
        for frame in self.frames[self.checked :]:
            self.checker.check(json.dumps(frame))
            self.checked += 1

    async def rejects(self, id_) -> dict:
        """Wait for an error with this id, which may be any; return the error."""
        return (await self.until(lambda f: "error" in f and f["id"] == id_))["error"]

    def updates(self, kind: str) -> list[dict]:
        """Return the updates of a kind, in their order."""
        found = ((frame.get("params") or {}).get("update") or {} for frame in self.frames)
        return [update for update in found if update.get("sessionUpdate") == kind]

    async def code(self) -> int:
        """Read to the end; return the code with which the gateway closed."""
        with contextlib.suppress(EOFError):
            await self.until(lambda _: False)
        return self.closed.code

    def phases(self) -> list[dict]:
        return [f["params"] for f in self.frames if f.get("method") == "_gateway-trio/phase"]

    def place(self, test) -> int:
        """Return where the first frame stands for which the test holds."""
        return next(i for i, frame in enumerate(self.frames) if test(frame))


class Lab:
    """What `acp_lab` gives: the gateway, and clients that are checked."""

    def __init__(self, inner):
        self.gateway = inner.gateway
        self.listener = inner.listener
        self.nursery = inner.nursery
        self.clients: list[Client] = []
        self._inner = inner

    async def connect(self, *, token: str | None = None) -> Client:
        """Connect, and say nothing."""
        client = Client(await self._inner.websocket("/acp", token=token))
        self.clients.append(client)
        await self.nursery.start(client.read)
        return client

    async def acp(self, *, ours: bool = True, token: str | None = None) -> Client:
        """Connect and initialize; with `ours`, up to the notice of the phase."""
        client = await self.connect(token=token)
        await client.initialize(ours=ours)
        if ours:
            await client.until(lambda f: f.get("method") == "_gateway-trio/phase")
        return client

    async def chat(self, session: str = "main", *, token: str | None = None):
        return await self._inner.chat(session, token=token)


@contextlib.asynccontextmanager
async def acp_lab(config=None, *, listener=None, agent=None, limit=60, **more):
    """Run a gateway in memory for the time of the block, at most `limit` seconds; then check every frame.

    As `gateway_trio.testing.open_gateway`, but that the listener can be chosen.
    """
    listener = listener or MemoryListener()
    with trio.fail_after(limit):
        async with trio.open_nursery() as clients:
            async with trio.open_nursery() as servers:
                serving = partial(serve, config, agent=agent or ScriptedAgent(), listeners=[listener], **more)
                gateway = await servers.start(serving)
                lab = Lab(testing.Lab(gateway, listener, clients))
                try:
                    yield lab
                finally:
                    if isinstance(agent, ScriptedAgent):
                        agent.release()
                gateway.drain("shutdown", by="the end of the block", grace_seconds=0)
            clients.cancel_scope.cancel()
    for client in lab.clients:
        client.check()


class SlowListener(MemoryListener):
    """A listener whose clients can be made to take nothing: `takes` False, then the gateway's sends wait."""

    def __init__(self):
        super().__init__()
        self._takes = trio.Event()
        self._takes.set()

    async def connect(self):
        ours, theirs = trio.testing.memory_stream_pair()
        pump = theirs.send_stream.send_all_hook

        async def wait_and_pump():
            await self._takes.wait()
            await pump()

        theirs.send_stream.send_all_hook = wait_and_pump
        await self._connecting.send(theirs)
        return ours

    def stop(self):
        self._takes = trio.Event()

    def go(self):
        self._takes.set()


def states(client, work: str = "turn") -> list[str]:
    """Return the states that a client was told, in their order."""
    return [ours_of(f)[work]["state"] for f in client.frames if work in ours_of(f)]


def follows_its_outcome(client, id_) -> str:
    """Assert that the answer to a prompt stands directly behind the event that ended its work; return its state.

    Other answers may stand between, as several requests can wait for one outcome.
    """
    at = client.place(lambda f: f.get("id") == id_ and "method" not in f) - 1
    while "method" not in client.frames[at]:
        at -= 1
    ours = ours_of(client.frames[at])
    change = ours.get("turn") or ours.get("exec")
    assert change is not None, client.frames[at]
    assert change["state"] not in ("queued", "running"), change
    return change["state"]


async def refused(client, method: str, params=None) -> AcpError:
    """Send a request and return its error."""
    try:
        result = await client.call(method, params)
    except AcpError as error:
        return error
    raise AssertionError(f"{method} was answered: {result}")
