"""Keeps one connection to a gateway, and brings it back when it is lost.

Whether a client comes back says the close code, by the one table in `core.jsonrpc`. When it does says the
gateway's goodbye; where there was none, and after a try that failed, `core.retries`: exponential backoff with
jitter, and never before a `Retry-After`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol

import trio
from attrs import frozen

from gateway_trio.client.address import Address
from gateway_trio.client.errors import ClientError, Closed, Lost, Refused, Unauthorized, Unreachable
from gateway_trio.client.link import CLOSE_SECONDS, Link
from gateway_trio.client.wire import Wire
from gateway_trio.core.acp import OURS, PROTOCOL_VERSION, TOKEN_METHOD, most_message_bytes
from gateway_trio.core.jsonrpc import Notification, Request, comes_back
from gateway_trio.core.retries import MOST_SECONDS, next_try

__all__ = ["Host", "Keeper", "Plan"]

_NO_END = 10**9  # tries; a client that is to come back for ever counts no further


@frozen
class Plan:
    """How to connect.

    The fields are the arguments of `connect`.
    """

    address: Address
    token: str | None
    token_in: Literal["header", "message"]
    open_stream: Callable[[], Awaitable[trio.abc.Stream]]
    connect_seconds: float
    come_back_seconds: float | None
    counts: bool = False


class Host(Protocol):
    """Whom a keeper tells. All but `welcome` and `ready` are synchronous."""

    def up(self, wire: Wire) -> None:
        """There is a connection, initialized and authenticated."""

    async def welcome(self, wire: Wire) -> None:
        """Do what a new connection begins with, beside its reading. May raise `ClientError`s, which end it."""

    async def ready(self, message: Any) -> None:
        """Return once this message can be taken; nothing more is read before."""

    def incoming(self, message: Request | Notification) -> None:
        """The gateway says something that is no answer."""

    def down(self, lost: Lost, wait_seconds: float) -> None:
        """The connection is lost; it is tried again after that many seconds."""

    def over(self, error: ClientError) -> None:
        """There is no connection, and there will be none."""


class Keeper:
    """`wire` is the connection that there is, None while there is none."""

    def __init__(self, plan: Plan, host: Host) -> None:
        self.wire: Wire | None = None
        self.goodbye_ms: int | None = None  #: what the gateway said about coming back
        self._plan = plan
        self._host = host
        self._was_up = False
        self._first: trio.TaskStatus[ClientError | None] | None = None

    async def run(self, *, task_status: trio.TaskStatus[ClientError | None]) -> None:
        """Keep the connection until it is over or this is cancelled, which closes it with 1000.

        Reports as started None when the first connection is up, or the error with which the first try failed.
        """
        self._first = task_status
        failures, lost_at = 0, 0.0
        while True:
            began, self._was_up, self.goodbye_ms = trio.current_time(), False, None
            wire, error = await self._connect_and_serve()
            if self._first is not None:
                task_status.started(_for_good(error))
                return
            now = trio.current_time()
            if self._was_up:
                lost_at = now
            failures = 1 if self._was_up and now - began > MOST_SECONDS else failures + 1
            wait = self._wait(error, failures, now - lost_at)
            if wait is None:
                error = _for_good(error)
            if wire is not None:
                wire.end(error)
            if wait is None:
                self._host.over(error)
                return
            if isinstance(error, Lost):
                self._host.down(error, wait)
            await trio.sleep(wait)

    def _wait(self, error: ClientError, failures: int, passed: float) -> float | None:
        """Return the seconds until the next try, None if there is to be none."""
        plan = self._plan
        left = math.inf if plan.come_back_seconds is None else plan.come_back_seconds - passed
        asked = None
        match error:
            case Unreachable():
                if not error.retryable:
                    return None
                asked = None if error.retry_after_ms is None else error.retry_after_ms / 1000
            case Lost(code=code):
                if not comes_back(code):
                    return None
                if self.goodbye_ms is not None:
                    return self.goodbye_ms / 1000 if self.goodbye_ms / 1000 < left else None
            case Refused(retryable=False) | Unauthorized(retry_after_ms=None):
                return None
            case Refused(retry_after_ms=after) | Unauthorized(retry_after_ms=after):
                asked = None if after is None else after / 1000
        chance = random.random()  # noqa: S311 - spreads load, guards nothing
        return next_try(failures, most=_NO_END, asked=asked, left=left, chance=chance)

    # --- one connection ---

    async def _connect_and_serve(self) -> tuple[Wire | None, ClientError]:
        """Return the connection that there was, if there was one, and why there is none any more."""
        wire: Wire | None = None
        ended: list[ClientError] = []
        try:
            async with trio.open_nursery() as nursery:
                with trio.fail_after(self._plan.connect_seconds):
                    link = await self._open(nursery)
                try:
                    wire = Wire(link, self._host.incoming, self._host.ready)
                    nursery.start_soon(wire.write)
                    nursery.start_soon(wire.keep_alive)
                    nursery.start_soon(self._begin, wire)
                    ended.append(await wire.read())
                finally:
                    self.wire = None
                    with trio.move_on_after(2 * CLOSE_SECONDS, shield=True):
                        await link.close()
                nursery.cancel_scope.cancel()
        except* ClientError as group:
            ended += [fault for fault in group.exceptions if isinstance(fault, ClientError)]
        except* trio.TooSlowError:
            ended.append(Unreachable(f"the gateway did not answer within {self._plan.connect_seconds:g} s"))
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as group:
            ended.append(Unreachable(f"cannot connect: {group.exceptions[0]}"))
        return wire, ended[0]

    async def _open(self, nursery: trio.Nursery) -> Link:
        plan = self._plan
        headers = []
        if plan.token is not None and plan.token_in == "header":  # noqa: S105 - where it goes, not what it is
            headers.append((b"Authorization", b"Bearer " + plan.token.encode("ascii")))
        return await Link.open(nursery, await plan.open_stream(), plan.address, headers)

    async def _begin(self, wire: Wire) -> None:
        with trio.fail_after(self._plan.connect_seconds):
            await self._greet(wire)
        self.wire = wire
        self._was_up = True
        self._host.up(wire)
        if self._first is not None:
            self._first.started(None)
            self._first = None
        await self._host.welcome(wire)

    async def _greet(self, wire: Wire) -> None:
        """Initialize, and authenticate where that is asked for. Raises `ClientError`s."""
        capabilities: dict[str, Any] = {"_meta": {OURS: {"counts": True} if self._plan.counts else {}}}
        ask = {"protocolVersion": PROTOCOL_VERSION, "clientCapabilities": capabilities}
        told = await wire.call("initialize", ask)
        if told.get("protocolVersion") != PROTOCOL_VERSION:
            raise Unreachable("this is no gateway that speaks version 1 of ACP", retryable=False)
        wire.most_bytes = most_message_bytes(told, wire.most_bytes)
        methods = told.get("authMethods") or []
        if not any(isinstance(method, dict) and method.get("id") == TOKEN_METHOD["id"] for method in methods):
            return
        if self._plan.token is None:
            raise Unauthorized("the gateway wants a token")
        meta = {OURS: {"token": self._plan.token}}
        try:
            await wire.call("authenticate", {"methodId": TOKEN_METHOD["id"], "_meta": meta})
        except Refused as refusal:
            raise Unauthorized(str(refusal), retry_after_ms=refusal.retry_after_ms) from None


def _for_good(error: ClientError) -> ClientError:
    return Closed(str(error), code=error.code) if isinstance(error, Lost) else error
