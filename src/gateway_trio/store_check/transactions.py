"""What is in a commit happens whole, in its order, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from gateway_trio.core.events import Kind, Message
from gateway_trio.store import (
    AddEvent,
    AddSession,
    AddTurn,
    Change,
    DropSession,
    Late,
    Retract,
    SetText,
    Store,
)
from gateway_trio.store_check.common import (
    ALL,
    ENDED,
    EXEC,
    Rule,
    S,
    added,
    ended,
    moved,
    numbers,
    prompted,
    refuses,
    same,
    unfinished,
)

__all__ = ["RULES"]


async def all_or_nothing(store: Store) -> None:
    await added(store, "whole", ("t", Message(Kind.ANSWER)))
    await store.commit([AddTurn("whole-t", "whole", "key", "digest", 1)])
    good: Sequence[Change] = (
        AddSession("whole-2", "whole's", "main"),
        AddEvent("whole", 2, "whole-t", ended("whole-t", 1)),
        SetText("whole", 1, "text"),
        moved("whole-t", S.RUNNING, S.QUEUED),
        AddTurn("whole-u", "whole", "key", "digest", 2),
        evolve(EXEC, id="whole-e", session="whole"),
        Retract("whole", 1),
        DropSession("whole"),
    )
    bad = (
        moved("whole-t", S.COMPLETED, S.FAILED),
        evolve(ENDED, id="whole-9"),
        AddEvent("whole", 9, "t", ended("t", 1)),
    )

    async def read() -> object:
        return (
            await store.sessions("whole's", skip=0, limit=9), await store.events("whole", 1, keep_bytes=ALL),
            await store.growing("whole", 9), await store.keyed("whole", 9), await unfinished(store, "whole"),
            await store.session("whole"),
        )  # fmt: skip

    before = await read()
    for wrong in bad:
        for changes in ((wrong, *good), (*good, wrong)):
            await refuses(store, *changes)
            same(await read(), before, "what there is after a commit that was refused")
    await store.commit([])
    same(await read(), before, "what there is after a commit of nothing")
    await store.commit(good[:-2])
    same(
        [work.state for work in await unfinished(store, "whole")],
        [S.RUNNING, S.QUEUED, S.RUNNING],
        "what there is then",
    )


async def a_condition_sees_what_stands_before_it(store: Store) -> None:
    await store.commit([AddTurn("before", "before", None, ""), moved("before", S.RUNNING, S.QUEUED)])
    await refuses(store, moved("before", S.FAILED, S.RUNNING), moved("before", S.COMPLETED, S.RUNNING))
    same([work.state for work in await unfinished(store, "before")], [S.RUNNING], "the state")


async def a_retract_takes_back(store: Store) -> None:
    await added(store, "retract")
    await store.commit(
        [*prompted("retract", 1, "retract-1", "key"), evolve(EXEC, id="retract-0", session="retract", seq=0)]
    )
    await store.commit(
        [AddEvent("retract", 2, "retract-1", ended("retract-1", 1)), *prompted("retract", 3, "retract-2", "k")]
    )
    await store.commit(
        [
            evolve(EXEC, id="retract-3", session="retract", seq=3),
            evolve(EXEC, id="retract-4", session="retract else", seq=3),
        ]
    )
    await store.commit([Retract("retract", 4), Retract("retract of nobody", 1)])
    same(await numbers(store, "retract"), [1, 2, 3], "what stays if nothing came later")
    await store.commit([Retract("retract", 2)])
    found = await store.session("retract")
    same(found and found.last, 1, "the last number")
    same(await numbers(store, "retract"), [1], "the events")
    kept = [(work.id, work.outcome, work.outcome_at) for work in await store.keyed("retract", 9)]
    same(kept, [("retract-1", None, 0), ("retract-0", None, 0)], "the turns and execs")
    same([work.id for work in await unfinished(store, "retract else")], ["retract-4"], "those of another session")
    await store.commit(
        [*prompted("retract", 2, "retract-2", "k"), evolve(EXEC, id="retract-3", session="retract")]
    )
    same(await numbers(store, "retract"), [1, 2], "the numbers, given again")


async def what_is_late_does_nothing_where_it_cannot(store: Store) -> None:
    run, ended = evolve(EXEC, id="late-e", session="late"), evolve(ENDED, id="late-e")
    await store.commit(
        [Late(ended), Late(moved("late-t", S.FAILED, S.QUEUED)), AddTurn("late-t", "late", None, ""), run]
    )
    same([work.state for work in await unfinished(store, "late")], [S.QUEUED, S.RUNNING], "what waits and runs")
    await store.commit([Late(moved("late-t", S.FAILED, S.RUNNING)), Late(moved("late-t", S.RUNNING, S.QUEUED))])
    same([work.state for work in await unfinished(store, "late")], [S.RUNNING, S.RUNNING], "what runs")
    await store.commit([Late(moved("late-t", S.FAILED, S.RUNNING)), Late(ended), Late(ended)])
    same(list(await unfinished(store, "late")), [], "what runs then")


RULES: Sequence[Rule] = (
    all_or_nothing,
    a_condition_sees_what_stands_before_it,
    a_retract_takes_back,
    what_is_late_does_nothing_where_it_cannot,
)
