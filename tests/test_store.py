"""What every store must do (`check_store`), and what only some do."""

import itertools

import pytest
import trio
import trio.testing

from gateway_trio.core.events import Prompt
from gateway_trio.core.session import TurnState
from gateway_trio.memory_store import MemoryStore
from gateway_trio.sqlite_store import SqliteStore
from gateway_trio.store import (
    AddEvent,
    AddExec,
    AddSession,
    AddTurn,
    DropSession,
    EndExec,
    MoveTurn,
    Retract,
    StoreUnavailable,
)
from gateway_trio.testing import FailingStore, check_store

S = TurnState


@pytest.fixture(params=["memory", "failing", "sqlite"])
def make_store(request, tmp_path):
    return {
        "memory": lambda: MemoryStore(keep_events=10_000),
        "failing": lambda: FailingStore(keep_events=10_000),
        "sqlite": lambda: SqliteStore(tmp_path / "state" / "gateway.db"),
    }[request.param]


async def test_it_keeps_its_word(make_store):
    await check_store(make_store)


# --- what only the one in memory does ---


async def commit_turns(store, numbers):
    for i in numbers:
        turn = f"t{i}"
        exec_ = AddExec(f"e{i}", "s", "local", "uptime", (), 100.0)
        await store.commit([AddSession(f"s{i}", "local"), AddTurn(turn, "s", "key", "")])
        await store.commit([MoveTurn(turn, frozenset({S.QUEUED}), S.RUNNING), exec_])
        await store.commit([MoveTurn(turn, frozenset({S.RUNNING}), S.COMPLETED), EndExec(f"e{i}", {}, 101.0)])


async def test_a_commit_in_memory_lets_others_on():
    store = MemoryStore()
    with trio.testing.assert_checkpoints():
        await store.commit([AddSession("s", "local")])


async def test_memory_keeps_a_bounded_number_of_what_has_ended_and_all_that_runs():
    store = MemoryStore(keep=10, keep_events=1)
    waits, runs = AddTurn("waits", "s", None, ""), AddExec("runs", "s", "local", "uptime", (), 100.0)
    await store.commit([waits, runs])
    await commit_turns(store, range(100))
    assert [work.id for work in await store.unfinished()] == ["waits", "runs"]
    assert [row.id for row in await store.sessions(None, skip=0, limit=99)] == [f"s{i}" for i in range(99, 89, -1)]
    assert [work.id for work in await store.keyed("s", 99)][-1] == "t99"
    assert len(await store.keyed("s", 99)) <= 10
    assert len(store.execs) == 10
    assert store.execs["runs"] == (runs, None)
    assert store.execs["e99"][1] == EndExec("e99", {}, 101.0)
    assert not store.durable


async def test_memory_that_keeps_no_events_keeps_no_turn_that_has_ended():
    store = MemoryStore()
    await commit_turns(store, range(3))
    assert await store.keyed("s", 99) == []
    assert len(store.execs) == 3
    with pytest.raises(StoreUnavailable):
        await store.commit([MoveTurn("t1", frozenset(TurnState), TurnState.COMPLETED)])


@pytest.mark.parametrize("keep", [0, 3])
async def test_memory_keeps_the_newest_events(keep):
    store = MemoryStore(keep_events=keep)
    events = [AddEvent("s", number, "t", Prompt("hi", "turn")) for number in range(1, 10)]
    await store.commit([AddSession("s", "local"), *events])
    assert [row.number for row in await store.tail("s", keep_bytes=10**6)] == [7, 8, 9][3 - keep :]
    assert (await store.session("s")).last == 9


async def test_what_a_refused_commit_took_out_of_memory_stands_again_where_it_stood():
    store = MemoryStore(keep_events=10)
    events = [AddEvent("s1", number, "t", Prompt("hi", "turn")) for number in (1, 2, 3)]
    await store.commit([AddSession("s1", "local"), *events, AddSession("s2", "local")])
    with pytest.raises(StoreUnavailable):
        await store.commit([Retract("s1", 1), DropSession("s1"), EndExec("nobody", {}, 1.0)])
    assert [row.number for row in await store.events("s1", 1, keep_bytes=10**6)] == [1, 2, 3]
    assert [row.id for row in await store.sessions(None, skip=0, limit=9)] == ["s2", "s1"]


# --- the fake ---


async def test_a_store_that_fails_changes_nothing_and_goes_on_afterwards():
    store = FailingStore()
    store.failing = True
    with pytest.raises(StoreUnavailable, match="no space"):
        await store.commit([AddSession("s", "local")])
    assert await store.session("s") is None
    store.failing = False
    await store.commit([AddSession("s", "local")])
    assert await store.session("s") is not None


async def test_a_store_that_stalls_commits_in_order_when_it_goes_on():
    store = FailingStore(keep_events=100)
    await store.commit([AddSession("s", "local")])
    store.stall()
    numbers = itertools.count(1)

    async def commit():
        await store.commit([AddEvent("s", next(numbers), "t", Prompt("hi", "turn"))])

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(commit)
            await trio.testing.wait_all_tasks_blocked()
            assert (await store.session("s")).last == 0
            store.go()
    assert (await store.session("s")).last == 20
