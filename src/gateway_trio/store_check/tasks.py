"""Many tasks at once, and commits that are given up."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import trio

from gateway_trio.core.events import Prompt
from gateway_trio.store import (
    AddEvent,
    Retract,
    Store,
)
from gateway_trio.store_check.common import (
    ALL,
    Rule,
    added,
    prompted,
    refuses,
    same,
)

__all__ = ["RULES"]


async def commits_happen_in_the_order_of_the_calls(store: Store) -> None:
    await added(store, "order")
    numbers = itertools.count(1)

    async def task() -> None:
        for _ in range(20):
            # No checkpoint stands between taking the number and the call.
            await store.commit([AddEvent("order", next(numbers), "t", Prompt("hi", "turn"))])
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(task)
    rows = await store.events("order", 1, keep_bytes=ALL)
    same([row.number for row in rows], list(range(1, 1001)), "the numbers that fifty tasks added")


async def one_that_is_refused_fails_no_other(store: Store) -> None:
    await added(store, "others")
    numbers = itertools.count(1)

    async def good() -> None:
        await store.commit([AddEvent("others", next(numbers), "t", Prompt("hi", "turn"))])

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(good)
            nursery.start_soon(refuses, store, AddEvent("others", 999, "t", Prompt("hi", "turn")))
    found = await store.session("others")
    same(found and found.last, 20, "the last number, after as many that were refused")


async def reads_and_commits_do_not_mix(store: Store) -> None:
    """See nothing of a commit or all of it."""
    await added(store, "mixed")

    async def write() -> None:
        for number in range(1, 41, 2):
            first, second = prompted("mixed", number, f"mixed-{number}")
            await store.commit([first, AddEvent("mixed", number + 1, "t", Prompt("hi", "turn")), second])

    async def read() -> None:
        for _ in range(20):
            rows = await store.events("mixed", 1, keep_bytes=ALL)
            same(len(rows) % 2, 0, "how many of two events that were added at once are there")
            same([row.number for row in rows], list(range(1, len(rows) + 1)), "the numbers")
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        for _ in range(3):
            nursery.start_soon(read)


async def a_commit_that_was_given_up_can_be_taken_back(store: Store) -> None:
    await added(store, "given-up")
    for round_ in range(20):
        number, turn = round_ + 1, f"given-up-{round_}"
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.commit, prompted("given-up", number, turn, "key"))
                for _ in range(round_ % 4):
                    await trio.lowlevel.checkpoint()
                scope.cancel()
        await store.commit([Retract("given-up", number), *prompted("given-up", number, f"{turn}-again", "key")])
    rows = await store.events("given-up", 1, keep_bytes=ALL)
    same([row.owner for row in rows], [f"given-up-{i}-again" for i in range(20)], "the events")
    keyed = [work.id for work in await store.keyed("given-up", 99)]
    same(keyed, [f"given-up-{i}-again" for i in range(20)], "the turns")


RULES: Sequence[Rule] = (
    commits_happen_in_the_order_of_the_calls,
    one_that_is_refused_fails_no_other,
    reads_and_commits_do_not_mix,
    a_commit_that_was_given_up_can_be_taken_back,
)
