"""What every store must do. `MemoryStore` is the one there is; another is added to `STORES` and nowhere else."""

import pytest
import trio
from attrs import evolve

from gateway_trio.core.events import Prompt
from gateway_trio.core.session import TurnState
from gateway_trio.store import (
    AddEvent,
    AddExec,
    AddSession,
    AddTurn,
    EndExec,
    ExecRow,
    MemoryStore,
    MoveTurn,
    SetText,
    StoreUnavailable,
)
from gateway_trio.testing import FailingStore

S = TurnState
STORES = {"memory": MemoryStore, "failing": FailingStore}


@pytest.fixture(params=STORES.values(), ids=STORES)
def store(request):
    return request.param()


def move(turn, *sources, to):
    return MoveTurn(turn, frozenset(sources), to)


SESSION = AddSession("s1", "local", "main")
TURN = AddTurn("t1", "s1", "key", "digest")
PROMPT = AddEvent("s1", 1, "t1", Prompt("hi", "turn"))
EXEC = AddExec("e1", "s1", "local", "uptime", ("a",), 100.0)
END = EndExec("e1", {"status": "exited", "exitCode": 0}, 101.0)


async def test_an_accepted_prompt_is_there_in_state_queued(store):
    await store.open()
    await store.commit([SESSION])
    await store.commit([PROMPT, SetText("s1", 1, "x"), TURN])
    assert store.sessions == {"s1": SESSION}
    assert store.turns == {"t1": S.QUEUED}
    await store.aclose()


@pytest.mark.parametrize("outcome", [S.COMPLETED, S.CANCELLED, S.INTERRUPTED, S.FAILED])
async def test_a_turn_moves_to_running_and_to_one_outcome(store, outcome):
    await store.commit([TURN])
    await store.commit([move("t1", S.QUEUED, to=S.RUNNING)])
    await store.commit([move("t1", S.QUEUED, S.RUNNING, to=outcome)])
    assert store.turns["t1"] is outcome
    for other in (S.COMPLETED, S.CANCELLED):
        with pytest.raises(StoreUnavailable, match="t1"):
            await store.commit([move("t1", S.QUEUED, S.RUNNING, to=other)])
    assert store.turns["t1"] is outcome


@pytest.mark.parametrize("turn", ["t1", "nobody's"])
async def test_a_move_from_another_state_does_not_happen(store, turn):
    await store.commit([TURN])
    with pytest.raises(StoreUnavailable, match="running"):
        await store.commit([move(turn, S.RUNNING, to=S.COMPLETED)])
    assert store.turns == {"t1": S.QUEUED}


@pytest.mark.parametrize(
    "wrong",
    [
        move("t1", S.RUNNING, to=S.COMPLETED),
        move("t9", S.QUEUED, to=S.RUNNING),
        EndExec("e9", {}, 1.0),
    ],
)
@pytest.mark.parametrize("first", [True, False])
async def test_all_of_a_transaction_happens_or_none(store, wrong, first):
    await store.commit([TURN])
    others = [SESSION, EXEC, AddTurn("t2", "s1", None, ""), move("t2", S.QUEUED, to=S.RUNNING)]
    with pytest.raises(StoreUnavailable):
        await store.commit([wrong, *others] if first else [*others, wrong])
    assert (store.sessions, store.turns, store.execs) == ({}, {"t1": S.QUEUED}, {})
    await store.commit(others)
    assert store.turns == {"t1": S.QUEUED, "t2": S.RUNNING}


async def test_a_condition_sees_what_stands_before_it_in_its_transaction(store):
    await store.commit([TURN, move("t1", S.QUEUED, to=S.RUNNING)])
    assert store.turns == {"t1": S.RUNNING}
    with pytest.raises(StoreUnavailable):
        await store.commit([move("t1", S.RUNNING, to=S.COMPLETED), move("t1", S.RUNNING, to=S.CANCELLED)])
    assert store.turns == {"t1": S.RUNNING}


async def test_an_exec_has_a_row_before_it_runs_and_its_end_once(store):
    await store.commit([EXEC])
    assert store.execs == {"e1": ExecRow(EXEC)}
    await store.commit([END])
    assert store.execs == {"e1": ExecRow(EXEC, END)}
    with pytest.raises(StoreUnavailable, match="e1"):
        await store.commit([evolve(END, at=200.0)])
    assert store.execs == {"e1": ExecRow(EXEC, END)}
    await store.commit([evolve(EXEC, id="e2"), evolve(END, id="e2")])
    assert store.execs["e2"].ended is not None


async def test_nothing_is_an_empty_transaction(store):
    await store.commit([])
    assert (store.sessions, store.turns, store.execs) == ({}, {}, {})


async def test_memory_keeps_a_bounded_number_of_what_has_ended_and_all_that_runs():
    store = MemoryStore(keep=10)
    await store.commit([AddTurn("waits", "s", None, ""), evolve(EXEC, id="runs")])
    for i in range(1000):
        turn = f"t{i}"
        await store.commit([AddSession(f"s{i}", "local"), AddTurn(turn, "s", None, "")])
        await store.commit([move(turn, S.QUEUED, to=S.RUNNING)])
        await store.commit(
            [move(turn, S.RUNNING, to=S.COMPLETED), evolve(EXEC, id=f"e{i}"), evolve(END, id=f"e{i}")]
        )
        assert len(store.turns) + len(store.execs) <= 12
        assert len(store.sessions) <= 10
    assert store.turns["waits"] is S.QUEUED
    assert store.execs["runs"].ended is None
    assert "t999" in store.turns
    assert "s999" in store.sessions
    assert not store.durable


async def test_a_store_that_fails_changes_nothing_and_goes_on_afterwards():
    """Case 70, and the fake itself."""
    store = FailingStore()
    store.failing = True
    with pytest.raises(StoreUnavailable, match="no space"):
        await store.commit([TURN])
    assert store.turns == {}
    store.failing = False
    await store.commit([TURN])
    assert store.turns == {"t1": S.QUEUED}


async def test_a_store_that_stalls_commits_when_it_goes_on():
    store = FailingStore()
    store.stall()
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.commit, [TURN])
            await trio.testing.wait_all_tasks_blocked()
            assert store.turns == {}
            store.go()
    assert store.turns == {"t1": S.QUEUED}
