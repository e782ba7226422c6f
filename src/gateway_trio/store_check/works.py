"""Turns and execs."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from gateway_trio.core.session import OUTCOMES
from gateway_trio.store import (
    AddEvent,
    AddTurn,
    Store,
    Work,
)
from gateway_trio.store_check.common import (
    ENDED,
    EXEC,
    NOW,
    Rule,
    S,
    added,
    ended,
    moved,
    prompted,
    refuses,
    same,
    unfinished,
)

__all__ = ["RULES"]


async def a_turn_has_one_outcome(store: Store) -> None:
    await added(store, "outcome")
    for number, outcome in enumerate(sorted(OUTCOMES, key=lambda state: state.value), 1):
        turn = f"outcome-{number}"
        await store.commit(prompted("outcome", number, turn))
        await refuses(store, moved(turn, outcome, S.RUNNING))
        await store.commit([moved(turn, S.RUNNING, S.QUEUED)])
        same([work.state for work in await unfinished(store, "outcome")], [S.RUNNING], "the state")
        await refuses(store, *prompted("outcome", number + 1, turn))
        await store.commit([moved(turn, outcome, S.QUEUED, S.RUNNING)])
        for other in OUTCOMES:
            await refuses(store, moved(turn, other, S.QUEUED, S.RUNNING))
        same(list(await unfinished(store, "outcome")), [], "what waits or runs")
    await refuses(store, moved("outcome of nobody", S.RUNNING, S.QUEUED))


async def works_are_read_back(store: Store) -> None:
    await added(store, "works")
    await store.commit(prompted("works", 1, "works-1", "key"))
    await store.commit([evolve(EXEC, id="works-2"), evolve(EXEC, id="works-3", session=None, key=None)])
    await store.commit([AddTurn("works-4", "works", None, "digest", 0, "someone")])
    turn = Work("turn", "works-1", "works", "key", "digest", 1, S.QUEUED, 0.0, "someone")
    run = Work(
        "exec", "works-2", "works", "exec's key", "digest", 2, S.RUNNING, NOW, "someone", "uptime"
    )  # fmt: skip
    found = await store.keyed("works", 9)
    same(
        [evolve(work, at=work.at if work.kind == "exec" else 0.0) for work in found],
        [turn, run],
        "those with keys",
    )
    same([work.id for work in await store.keyed("works", 1)], ["works-2"], "the newest one with a key")
    same(list(await store.keyed("works of nobody", 9)), [], "those of no session")
    for since, wanted in ((0.0, ["works-1", "works-2"]), (1e12, ["works-2"])):
        names = [work.id for work in await store.keyed("works", 1, since=since)]
        same(names, wanted, f"the newest one with a key, and those since {since}")
    left = [work.id for work in await store.unfinished() if work.id.startswith("works-")]
    same(left, [f"works-{number}" for number in (1, 2, 3, 4)], "what waits or runs, oldest first")
    await store.commit(
        [moved("works-1", S.RUNNING, S.QUEUED), AddEvent("works", 2, "works-1", ended("works-1", 1))]
    )
    await store.commit([moved("works-1", S.COMPLETED, S.RUNNING), evolve(ENDED, id="works-2")])
    await store.commit([AddEvent("works", 3, "works-2", ended("works-2", 2, "exec"))])
    states = [(work.state, work.outcome, work.outcome_at) for work in await store.keyed("works", 9)]
    outcomes = [(S.COMPLETED, ended("works-1", 1), 2), (S.COMPLETED, ended("works-2", 2, "exec"), 3)]
    same(states, outcomes, "the outcomes")


async def an_exec_ends_once(store: Store) -> None:
    begun, ended = evolve(EXEC, id="exec-1", session="exec"), evolve(ENDED, id="exec-1")
    await refuses(store, ended)
    await store.commit([begun])
    await refuses(store, begun)
    await refuses(store, moved("exec-1", S.FAILED, S.RUNNING))
    same([work.id for work in await unfinished(store, "exec")], ["exec-1"], "the execs that run")
    await store.commit([ended])
    await refuses(store, ended)
    same(list(await unfinished(store, "exec")), [], "the execs that run")


RULES: Sequence[Rule] = (
    a_turn_has_one_outcome,
    works_are_read_back,
    an_exec_ends_once,
)
