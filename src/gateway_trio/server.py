"""The nursery tree, and `serve`.

The order of shutdown is the nesting, innermost first:

    agents ⊃ services ⊃ connections ⊃ doors ⊃ execs ⊃ turns

* Turns end first; execs are still taken, by doors and connections that still stand.
* Then execs end, then the doors close, then each connection says what is left, and goodbye.
* The keepalive goes after the last connection, the store after that.
* An agent that ignores its cancellation stands in `agents`, outside of all this. The way down does not wait for
  it; only `serve` itself cannot return before it ends, as no task can.

The whole tree stands in one shield. A cancel from outside does not cut it: a watcher beside the shield turns it
into a drain with no grace. The shield gets its deadline when a final drain begins, and that ends everything,
whatever hangs.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import trio

from gateway_trio.agents import Agent
from gateway_trio.agents.choose import chosen
from gateway_trio.config import Config
from gateway_trio.core.lifecycle import Action
from gateway_trio.core.phases import Phase, Reason
from gateway_trio.front_door import FrontDoor
from gateway_trio.gateway import Gateway
from gateway_trio.memory_store import MemoryStore
from gateway_trio.recovery import recover
from gateway_trio.reload import reachable
from gateway_trio.store import Store

__all__ = ["UnsafeBind", "serve"]

#: How often the keepalive looks at all connections, in seconds.
_LOOK_SECONDS = 5.0


class UnsafeBind(Exception):
    """An address off loopback without tokens, where everybody would be an admin."""


async def serve(
    config: Config | None = None,
    *,
    agent: Agent | None = None,
    store: Store | None = None,
    listeners: Sequence[trio.abc.Listener[Any]] | None = None,
    check_restart: Callable[[], Awaitable[str | None]] | None = None,
    read_config: Callable[[], Awaitable[Config]] | None = None,
    task_status: trio.TaskStatus[Gateway] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a gateway until a drain for `shutdown` or `restart` has come to its end.

    For `nursery.start`, which returns the `Gateway` once it is open.

    Args:
        config: None for all defaults.
        agent: answers prompts; None for the one that the config names.
        store: where accepted prompts stand; None for memory.
        listeners: where to accept; None to listen on the config's host and port. They are closed at the end. TCP
            sockets among them are judged by their own address, as the config's are.
        check_restart: called before a restart is begun; returns why it must not be, as the rest of a sentence,
            or None.
        read_config: called for `/reload`; raises `ConfigError`. None refuses that command.
        task_status: of `nursery.start`.

    Raises OSError where the port cannot be had, `UnsafeBind`, `AgentUnusable`, `ConfigError` where the environment
    lacks a token that the config names, and `StoreUnavailable`. Cancelling is a drain with no grace: running turns
    are cancelled and recorded, execs end within their limit, sockets get a close frame; then Cancelled is raised.
    Nothing process-wide is touched.

    """
    config = config or Config()
    async with contextlib.AsyncExitStack() as stack:
        for listener in listeners or ():
            stack.push_async_callback(listener.aclose)
        making = chosen(config.agent, os.environ, agent, close_seconds=config.drain.cleanup_seconds)
        ours = await stack.enter_async_context(making)
        gateway = Gateway(config, ours, store or MemoryStore(), check_restart, read_config)
        tree = _Tree(gateway)
        async with trio.open_nursery() as beside:
            beside.start_soon(tree.watch)
            with tree.shield:
                await tree.run(listeners, task_status)
            beside.cancel_scope.cancel()


class _Tree:
    """One run of the tree for one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self.shield = trio.CancelScope(shield=True)
        self._gateway = gateway
        self._coordinator = gateway.coordinator
        self._coordinator.on(Action.MOVE_DEADLINES, self._move_deadline)
        self._opening = trio.CancelScope()
        self._coordinator.on(Action.CLOSE_SOCKETS, self._opening.cancel)

    def _move_deadline(self) -> None:
        self.shield.deadline = self._coordinator.state.ends

    async def watch(self) -> None:
        """Turn a cancel from outside into a drain with no grace."""
        try:
            await trio.sleep_forever()
        finally:
            if self._coordinator.phase is not Phase.CLOSED:
                self._coordinator.drain(Reason.SHUTDOWN, by="cancelled", grace_seconds=0)

    async def run(
        self, listeners: Sequence[trio.abc.Listener[Any]] | None, task_status: trio.TaskStatus[Gateway]
    ) -> None:
        gateway, coordinator = self._gateway, self._coordinator
        async with trio.open_nursery() as agents:
            gateway.turns.runner.agents = gateway.breaker.agents = agents
            came_to_its_end = False
            try:
                await self._house(listeners, task_status)
                came_to_its_end = True
            finally:
                # Before an abandoned body is waited for: it may never end.
                coordinator.closed(cut=not came_to_its_end)
                gateway.report = coordinator.timeline.report(coordinator.state, cut=not came_to_its_end)
                gateway.closed.set()

    async def _house(
        self, listeners: Sequence[trio.abc.Listener[Any]] | None, task_status: trio.TaskStatus[Gateway]
    ) -> None:
        """Open the store, serve what it has, and close it. A final reason that comes before gives the start up."""
        gateway, opened = self._gateway, False
        try:
            with self._opening:
                await gateway.store.open()
                opened = True
                await gateway.sessions.open()
                await recover(gateway)
            if not self._coordinator.going_down:
                await self._services(listeners, task_status)
        finally:
            if opened:
                now = min(trio.current_time(), self._coordinator.state.ends)
                with trio.CancelScope(shield=True, deadline=now + gateway.config.drain.cleanup_seconds):
                    await gateway.sessions.saver.save()
                    await gateway.store.aclose()

    async def _services(
        self, listeners: Sequence[trio.abc.Listener[Any]] | None, task_status: trio.TaskStatus[Gateway]
    ) -> None:
        gateway = self._gateway
        async with trio.open_nursery() as services, contextlib.AsyncExitStack() as stack:
            services.start_soon(gateway.keep_alive, _LOOK_SECONDS)
            services.start_soon(gateway.sessions.saver.run)
            services.start_soon(gateway.breaker.watch)
            gateway.begin(services)
            what = "a socket to listen on, which was given to us,"
            if listeners is None:
                server = gateway.config.server
                listeners = await _listen(server.host, server.port)
                what = f"server.host = {server.host!r}"
                for listener in listeners:
                    stack.push_async_callback(listener.aclose)
            gateway.exposed = next(filter(None, map(reachable, listeners)), None)
            if gateway.exposed is not None and not gateway.entrance.tokens:
                raise _unsafe(what, gateway.exposed)
            gateway.listeners = listeners
            gateway.addresses = [_address(listener) for listener in listeners]
            await self._doors(listeners, task_status)
            services.cancel_scope.cancel()

    async def _doors(
        self, listeners: Sequence[trio.abc.Listener[Any]], task_status: trio.TaskStatus[Gateway]
    ) -> None:
        gateway, coordinator = self._gateway, self._coordinator
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as doors:
                async with trio.open_nursery() as gateway.execs.nursery:
                    async with trio.open_nursery() as turns:
                        gateway.turns.nursery = turns
                        if not coordinator.going_down:
                            coordinator.opened()
                            doors.start_soon(FrontDoor(gateway).serve, listeners, connections)
                            task_status.started(gateway)
                            await coordinator.until_turns_end()
                            gateway.turns.nursery = gateway.execs.nursery
                    if coordinator.phase is Phase.FINISHING:
                        await coordinator.until_execs_end()
                doors.cancel_scope.cancel()
            gateway.close_sockets()
            await coordinator.until_sockets_close()
            connections.cancel_scope.cancel()


async def _listen(host: str, port: int) -> list[trio.SocketListener]:
    """Listen there. Raises OSError, also for a host whose name the resolver cannot write."""
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except UnicodeError as fault:
        raise OSError(f"this can be no host's name: {fault}") from fault


def _unsafe(what: str, address: str) -> UnsafeBind:
    """Judged by the address that a socket has, whatever the config calls it."""
    return UnsafeBind(
        f"{what} is {address}, which others can reach, and whoever reaches this gateway is its"
        " admin, as there are no tokens: add some, as [[auth.tokens]], or bind a loopback address, such as"
        " 127.0.0.1"
    )


def _address(listener: trio.abc.Listener[Any]) -> Any:
    return listener.socket.getsockname() if isinstance(listener, trio.SocketListener) else repr(listener)
