"""An agent gateway that goes down well: chat and quick commands over one WebSocket, on Trio.

The public names are imported when they are first used, so that the program can block its signals before
anything heavy is loaded.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # type checkers take it for true; the module `typing` would be a third of the time to here
if TYPE_CHECKING:
    from gateway_trio.agents import (
        Agent,
        AgentError,
        AgentUnusable,
        BackendRejected,
        BackendUnavailable,
        Emit,
        ProbedAgent,
        TextDelta,
        Turn,
    )
    from gateway_trio.config import Config, ConfigError, load_config, parse_config
    from gateway_trio.gateway import Gateway
    from gateway_trio.memory_store import MemoryStore
    from gateway_trio.report import DrainReport
    from gateway_trio.server import UnsafeBind, serve
    from gateway_trio.sqlite_store import SqliteStore
    from gateway_trio.store import Store, StoreUnavailable

__version__ = "0.1.0"

_WHERE = {
    "Agent": "agents",
    "AgentError": "agents",
    "AgentUnusable": "agents",
    "BackendRejected": "agents",
    "BackendUnavailable": "agents",
    "Emit": "agents",
    "ProbedAgent": "agents",
    "TextDelta": "agents",
    "Turn": "agents",
    "Config": "config",
    "ConfigError": "config",
    "load_config": "config",
    "parse_config": "config",
    "Gateway": "gateway",
    "DrainReport": "report",
    "UnsafeBind": "server",
    "serve": "server",
    "MemoryStore": "memory_store",
    "SqliteStore": "sqlite_store",
    "Store": "store",
    "StoreUnavailable": "store",
}

__all__ = [
    "Agent", "AgentError", "AgentUnusable", "BackendRejected", "BackendUnavailable", "Config", "ConfigError",
    "DrainReport", "Emit", "Gateway", "MemoryStore", "ProbedAgent", "SqliteStore", "Store", "StoreUnavailable",
    "TextDelta", "Turn", "UnsafeBind", "load_config", "parse_config", "serve",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'gateway_trio' has no attribute {name!r}")
    return getattr(import_module(f"gateway_trio.{_WHERE[name]}"), name)
