"""From an accepted socket to an HTTP answer, a refusal, or a WebSocket connection.

Everything that a stranger can send before it is a connection is dealt with here, within `HANDSHAKE_SECONDS` and
`HEAD_BYTES`. Whatever happens to one socket stays with it: each runs behind `Isolated`, which lets nothing but
cancellation through to the nursery, and the socket is closed on every way out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import structlog
import trio
import trio_websocket
from attrs import frozen

from gateway_trio.auth import check_origin, is_local
from gateway_trio.connection import Connection
from gateway_trio.core.jsonrpc import Problem, problem
from gateway_trio.core.phases import Lane
from gateway_trio.core.text import short
from gateway_trio.dialects import DIALECTS, MakeDialect
from gateway_trio.guard import GuardedStream
from gateway_trio.handshake import BadRequest, BadToken, Head, read_head, upgrade, wants_upgrade
from gateway_trio.http import Answer, refuse, to_bytes, unwelcome
from gateway_trio.log import get_logger
from gateway_trio.pages import Pages
from gateway_trio.tokens import Identity, bearer

if TYPE_CHECKING:
    from gateway_trio.gateway import Gateway

__all__ = ["HANDSHAKE_SECONDS", "FrontDoor", "Isolated"]

log = get_logger("front_door")

#: From the accept to the end of the request head, and again to send an answer.
HANDSHAKE_SECONDS = 5.0
#: How long a socket is read to its end after the last thing that we sent.
LINGER_SECONDS = 2.0
#: Of a stranger's own words in a line of the log.
_LOGGED_CHARS = 200


class Isolated:
    """Looks like a nursery to those who start connections in it; what they raise is logged and goes no further."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery

    def start_soon(self, function: Callable[..., Awaitable[Any]], *args: Any, name: object = None) -> None:
        self._nursery.start_soon(self._run, function, args, name=name)

    async def _run(self, function: Callable[..., Awaitable[Any]], args: Sequence[Any]) -> None:
        try:
            await function(*args)
        except* Exception:
            log.exception("a connection failed")


@frozen
class Entry:
    """A request that becomes a WebSocket: its head, what wsproto is to read, where it comes from, and whose it is.

    `identity` is None for one that has to authenticate on the connection.
    """

    head: Head
    handshake: bytes
    address: str
    identity: Identity | None


class FrontDoor:
    """Answers every socket of the gateway's listeners. `dialects` are what is spoken, by path."""

    def __init__(self, gateway: Gateway, dialects: Mapping[str, MakeDialect] = DIALECTS) -> None:
        self._gateway = gateway
        self._dialects = dialects
        self._pages = Pages(gateway)
        self._handshakes = 0

    async def serve(self, listeners: Sequence[trio.abc.Listener[Any]], connections: trio.Nursery) -> None:
        """Accept until cancelled. Connections live in the nursery `connections` and outlive this."""
        isolated: Any = Isolated(connections)
        await trio.serve_listeners(self._handle, list(listeners), handler_nursery=isolated)

    async def _handle(self, stream: trio.abc.Stream) -> None:
        if self._handshakes >= self._gateway.config.server.max_connections:
            await trio.aclose_forcefully(stream)
            return
        guard = GuardedStream(stream)
        taken = None
        self._handshakes += 1
        try:
            with trio.move_on_after(HANDSHAKE_SECONDS):
                taken = await self._take(guard, _address(stream, local=True), _address(stream, local=False))
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        finally:
            self._handshakes -= 1
        if taken is None:
            await guard.end(LINGER_SECONDS)
        else:
            await self._connect(stream, taken)

    async def _take(self, guard: GuardedStream, reached: str, address: str) -> Entry | None:
        """Return what becomes a WebSocket, or answer and return None."""
        head = None
        try:
            head = await read_head(guard)
            if head is None:
                return None
            answer = await self._route(head, reached, address)
            if isinstance(answer, Entry):
                return answer
        except BadToken as bad:
            answer = (
                bad.answer
                if self._gateway.entrance.anyone()
                else unwelcome(self._gateway.entrance.refuse(address))
            )
        except BadRequest as bad:
            answer = bad.answer
        if answer.status >= HTTPStatus.BAD_REQUEST:
            self._gateway.coordinator.tally.rejected(answer.status)
        with contextlib.suppress(trio.BrokenResourceError):
            await guard.send_all(to_bytes(answer, head_only=head is not None and head.method == "HEAD"))
        return None

    async def _route(self, head: Head, reached: str, address: str) -> Answer | Entry:
        """Return the answer to a request, or what is to become a WebSocket. Raises `BadRequest`."""
        gateway = self._gateway
        if "host" not in head.headers:
            return refuse(400, "there is no Host header")
        origin = head.headers.get("origin")
        why = check_origin(gateway.config.server, reached=reached, host=head.headers["host"], origin=origin)
        if why is not None:
            log.info("refused", why=short(why, _LOGGED_CHARS))
            return refuse(403, why)
        if head.path not in self._dialects and head.path not in self._pages:
            return refuse(404, "there is /acp, /chat, /livez, /readyz and /metrics")
        if head.method not in ("GET", "HEAD"):
            return refuse(405, "GET only", ("Allow", "GET, HEAD"))
        who = self._who(head, address)
        if isinstance(who, Answer):
            return who
        if head.path in self._pages:
            local = is_local(reached=reached, host=head.headers["host"])
            return await self._pages.answer(head.path, known=who is not None, local=local)
        if head.method == "HEAD" or not wants_upgrade(head):
            return refuse(426, "this is a WebSocket endpoint", ("Upgrade", "websocket"))
        if who is None and head.path != "/acp":
            return unwelcome(problem("auth_required", "send a token: Authorization: Bearer …"))
        return self._admit(who) or Entry(head, upgrade(head), address, who)

    def _who(self, head: Head, address: str) -> Identity | Answer | None:
        """Return who asks, None for one who does not say, or the refusal of one who is not known."""
        header = head.headers.get("authorization")
        who = self._gateway.entrance.anyone()
        if who is not None or header is None:
            return who
        found = self._gateway.entrance.check(bearer(header), address)
        return unwelcome(found) if isinstance(found, Problem) else found

    def _admit(self, who: Identity | None) -> Answer | None:
        """Return why no further connection can be had now."""
        coordinator = self._gateway.coordinator
        if who is None and self._gateway.entrance.full():
            return refuse(503, "too many connections have not authenticated; come back", ("Retry-After", "5"))
        if not coordinator.admits(Lane.CONNECT):
            return refuse(503, "the gateway closes; come back", ("Retry-After", "2"))
        if len(coordinator.sockets) >= self._gateway.config.server.max_connections:
            return refuse(503, "there are too many connections; come back", ("Retry-After", "5"))
        return None

    async def _connect(self, stream: trio.abc.Stream, entry: Entry) -> None:
        """Speak the path's dialect to the connection's end, and close the socket.

        The socket counts until then: a drain waits until each peer has read our last word, or is out of time.
        """
        coordinator = self._gateway.coordinator
        send_seconds = self._gateway.config.server.send_seconds
        guard = GuardedStream(stream, prefix=entry.handshake, stall_seconds=send_seconds)
        coordinator.sockets.add(guard)
        try:
            unread = await self._speak(guard, entry)
            await guard.end(LINGER_SECONDS if unread else 0)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        finally:
            coordinator.sockets.discard(guard)
            coordinator.poke()

    async def _speak(self, guard: GuardedStream, entry: Entry) -> bool:
        """Return whether the peer may not have read our last word yet."""
        entrance = self._gateway.entrance
        connection, head = None, entry.head
        if entry.identity is not None:
            structlog.contextvars.bind_contextvars(principal=entry.identity.principal.name)
        entrance.arrive(entry.identity)
        try:
            async with trio.open_nursery() as nursery:
                connection = Connection(self._gateway, guard, nursery, entry.identity, entry.address)
                request = await trio_websocket.wrap_server_stream(
                    connection.reader_nursery, guard, max_message_size=connection.max_message_bytes
                )
                headers = [(b"Acp-Connection-Id", connection.id.encode())] if head.path == "/acp" else []
                websocket = await request.accept(extra_headers=headers)
                await connection.run(websocket, self._dialects[head.path](connection, head.query))
                nursery.cancel_scope.cancel()
        except* trio_websocket.ConnectionClosed:
            pass
        finally:
            entrance.leave(entry.identity if connection is None else connection.identity)
        return connection is None or connection.unread


def _address(stream: trio.abc.Stream, *, local: bool) -> str:
    """Return the address of our end, or of theirs: empty if they are gone already."""
    if not isinstance(stream, trio.SocketStream):
        return "127.0.0.1"  # a memory stream: as local as can be
    with contextlib.suppress(OSError):
        return str((stream.socket.getsockname() if local else stream.socket.getpeername())[0])
    return ""
