"""Another config for a gateway that runs: quick commands, tokens, limits.

All of it is checked before any of it holds, and then it holds in one step. What a running gateway cannot change is
kept as it is and named. A connection whose token is gone, or now says somebody else, is closed as `revoked`; its
turns and execs go on, as with any lost socket. The others are told which commands there are.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

import trio
from attrs import evolve

from gateway_trio.config import Config, ConfigError, Fault, is_loopback
from gateway_trio.core.jsonrpc import CLOSES
from gateway_trio.tokens import Tokens

if TYPE_CHECKING:
    from gateway_trio.gateway import Gateway

__all__ = ["reachable", "reload"]

#: Fields of `[server]` that only the start reads.
_BOUND = ("host", "port", "restart")


def reachable(listener: trio.abc.Listener[trio.abc.AsyncResource]) -> str | None:
    """Return the address of a listener that others than this machine can reach, None for any other."""
    if not isinstance(listener, trio.SocketListener):
        return None
    if listener.socket.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    address = str(listener.socket.getsockname()[0])
    return None if is_loopback(address) else address


def reload(gateway: Gateway, config: Config) -> tuple[str, ...]:
    """Let another config hold, and return the keys whose change takes a restart.

    Raises `ConfigError`, and then nothing has changed.
    """
    tokens = Tokens.resolve(config.auth, os.environ)
    if not tokens and gateway.exposed is not None:
        why = f"are required: this gateway listens on {gateway.exposed}, which others can reach"
        raise ConfigError((Fault("auth.tokens", why),))
    old = gateway.config
    later = tuple(_later(old, config))
    bound = {name: getattr(old.server, name) for name in _BOUND}
    gateway.use(evolve(config, agent=old.agent, store=old.store, server=evolve(config.server, **bound)), tokens)
    for connection in list(gateway.connections):
        if connection.identity is None:
            continue
        if tokens.holds(connection.identity):
            connection.commands_changed()
        else:
            connection.close(CLOSES["revoked"])
    return later


def _later(old: Config, new: Config) -> Iterator[str]:
    yield from (f"server.{name}" for name in _BOUND if getattr(old.server, name) != getattr(new.server, name))
    yield from (name for name in ("agent", "store") if getattr(old, name) != getattr(new, name))
