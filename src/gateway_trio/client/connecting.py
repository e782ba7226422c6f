"""Connecting to a gateway for the time of a block."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Literal

import trio

from gateway_trio.client.address import parse_url
from gateway_trio.client.client import Client
from gateway_trio.client.keeper import Plan
from gateway_trio.client.switchboard import Switchboard

__all__ = ["CONNECT_SECONDS", "check_token", "connect"]

#: One try to connect, up to the answer to `initialize`.
CONNECT_SECONDS = 10.0
#: What is posted already when the block of `connect` ends is sent within this time.
_FLUSH_SECONDS = 1.0


@contextlib.asynccontextmanager
async def connect(
    url: str,
    *,
    token: str | None = None,
    token_in: Literal["header", "message"] = "header",  # noqa: S107 - where it goes, not what it is
    open_stream: Callable[[], Awaitable[trio.abc.Stream]] | None = None,
    connect_seconds: float = CONNECT_SECONDS,
    come_back_seconds: float | None = None,
    counts: bool = False,
) -> AsyncIterator[Client]:
    """Connect to a gateway's `/acp` for the time of the block; at its end the connection is closed with 1000.

    Args:
        url: `ws://HOST[:PORT]` or `wss://…`.
        token: sent with the connection, never in the URL; None for a gateway that wants none.
        token_in: `header` sends it as `Authorization: Bearer`, `message` as ACP's `authenticate`, for a proxy that
            takes the header for itself.
        open_stream: makes the stream to the gateway, in place of a TCP connection to the URL's host.
        connect_seconds: how long one try may take, up to the answer to `initialize`.
        come_back_seconds: how long it is tried to bring a lost connection back. 0: not at all; None: without an
            end.
        counts: whether `phases` also has each change of the number of turns and execs.

    Raises ValueError for a URL or a token that cannot be one, and `Unreachable`, `Unauthorized`, `Refused` or
    `Closed` where the first try fails: that one is not tried again. What the block raises comes through as it is.
    Cancelling closes the connection; whatever it asked for at the gateway goes on there.

    """
    address = parse_url(url)
    if token is not None:
        check_token(token)
    plan = Plan(address, token, token_in, open_stream or address.open, connect_seconds, come_back_seconds, counts)
    async with _kept(Switchboard(plan)) as client:
        yield client


def check_token(token: str) -> None:
    """Raise ValueError for what no token can be."""
    if not (token.isascii() and token.isprintable() and token and " " not in token):
        raise ValueError("a token is printable ASCII without blanks")


@contextlib.asynccontextmanager
async def _kept(board: Switchboard) -> AsyncIterator[Client]:
    """Keep a connection for the time of the block."""
    fault: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            fault = await nursery.start(board.keeper.run)
            if fault is None:
                yield Client(board)
        except Exception as error:  # noqa: BLE001 - raised below, where no nursery wraps it
            fault = error
        if board.keeper.wire is not None:
            with trio.move_on_after(_FLUSH_SECONDS):
                await board.keeper.wire.flush()
        nursery.cancel_scope.cancel()
    if fault is not None:
        raise fault
