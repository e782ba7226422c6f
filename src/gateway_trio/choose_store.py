"""The store that the config names, for the program. A library's user makes one and gives it to `serve`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway_trio.memory_store import MemoryStore
from gateway_trio.sqlite_store import SqliteStore
from gateway_trio.store import Store, StoreUnavailable
from gateway_trio.tables import StoreConfig

__all__ = ["choose_store", "store_path"]


def choose_store(config: StoreConfig, environ: Mapping[str, str]) -> Store:
    """Return the store, which is not open yet. `environ` is where its path is looked up."""
    if config.type == "memory":
        return MemoryStore()
    return SqliteStore(store_path(config, environ), keep_days=config.keep_days, keep_events=config.keep_events)


def store_path(config: StoreConfig, environ: Mapping[str, str]) -> Path:
    """Return the absolute path of the database.

    By default it is in $XDG_STATE_HOME, which does not count where it is relative, or else in ~/.local/state
    (XDG base directory specification, 0.8). Raises `StoreUnavailable` where no home directory is to be found.
    """
    try:
        home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    except RuntimeError:
        raise StoreUnavailable("there is no home directory for the store; say where it is in store.path") from None
    if config.path is not None:
        return home / config.path[2:] if config.path.startswith("~/") else Path(config.path)
    state = Path(environ.get("XDG_STATE_HOME", ""))
    return (state if state.is_absolute() else home / ".local" / "state") / "gateway-trio" / "gateway.db"
