"""Which store a config names, and where the default one stands."""

from pathlib import Path

import pytest

from gateway_trio.choose_store import choose_store, store_path
from gateway_trio.config import StoreConfig
from gateway_trio.memory_store import MemoryStore
from gateway_trio.sqlite_store import SqliteStore


@pytest.mark.parametrize(
    ("path", "environ", "wanted"),
    [
        (None, {"XDG_STATE_HOME": "/state", "HOME": "/home/ann"}, "/state/gateway-trio/gateway.db"),
        (None, {"HOME": "/home/ann"}, "/home/ann/.local/state/gateway-trio/gateway.db"),
        (None, {"XDG_STATE_HOME": "", "HOME": "/home/ann"}, "/home/ann/.local/state/gateway-trio/gateway.db"),
        (None, {"XDG_STATE_HOME": "here", "HOME": "/home/ann"}, "/home/ann/.local/state/gateway-trio/gateway.db"),
        ("/x/y.db", {"XDG_STATE_HOME": "/state", "HOME": "/home/ann"}, "/x/y.db"),
        ("~/y.db", {"XDG_STATE_HOME": "/state", "HOME": "/home/ann"}, "/home/ann/y.db"),
        ("~/y.db", {}, f"{Path.home()}/y.db"),
    ],
)
def test_where_it_stands(path, environ, wanted):
    assert store_path(StoreConfig(path=path), environ) == Path(wanted)


async def test_what_the_config_says_is_what_the_store_does(tmp_path):
    config = StoreConfig(path=str(tmp_path / "x.db"), keep_days=3, keep_events=100)
    store = choose_store(config, {})
    assert isinstance(store, SqliteStore)
    assert (store.keep_days, store.keep_events) == (3, 100)
    await store.open()
    await store.aclose()
    assert (tmp_path / "x.db").exists()


def test_memory_is_chosen_by_its_type():
    assert isinstance(choose_store(StoreConfig("memory"), {}), MemoryStore)
