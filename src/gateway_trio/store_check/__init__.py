"""`check_store`: whether a store keeps its word. Its author calls it in a test."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import trio

from gateway_trio.core.events import Prompt
from gateway_trio.store import AddEvent, Retract, Store, StoreUnavailable
from gateway_trio.store_check import events, tasks, transactions, works
from gateway_trio.store_check.common import ALL, added, same

__all__ = ["check_store"]

_RULES = (*events.RULES, *works.RULES, *transactions.RULES, *tasks.RULES)


async def check_store(make_store: Callable[[], Store], *, limit_seconds: float = 120) -> None:
    """Raise AssertionError, or what the store raised, unless it does what `Store` says; a note names the rule.

    A rule that tries many tasks at once raises an `ExceptionGroup` of these.

    Args:
      make_store: Returns a store that is not open. All that it returns are in the same place, which is empty at
        first: a durable one finds there what the one before has written. One that keeps a bounded number of rows
        must keep some thousands.
      limit_seconds: What it may take at most, by the clock of the run; beyond it, `trio.TooSlowError`.

    Cancelling it leaves the store open.

    """
    with trio.fail_after(limit_seconds):
        store = make_store()
        await store.open()
        for rule in _RULES:
            try:
                await rule(store)
            except Exception as error:
                error.add_note(f"the rule: {rule.__name__.replace('_', ' ')}")
                raise
        if store.durable:
            await _it_is_there_again(store, make_store)
        else:
            await store.aclose()


async def _everything(store: Store) -> object:
    rows = await store.sessions(None, skip=0, limit=100_000)
    return (
        rows,
        await store.owners(),
        await store.unfinished(),
        [await store.events(row.id, 1, keep_bytes=ALL) for row in rows],
        [await store.keyed(row.id, 1000) for row in rows],
        [await store.growing(row.id, row.last) for row in rows],
    )


async def _it_is_there_again(store: Store, make_store: Callable[[], Store]) -> None:
    """Close the store, with commits on their way, and find everything in the next."""
    try:
        await make_store().open()
    except StoreUnavailable:
        pass
    else:
        raise AssertionError("a second store opened what the first one has open")
    await added(store, "closing")
    asked = trio.Event()

    numbers = itertools.count(1)

    async def ask() -> None:
        number = next(numbers)
        if number == 50:  # noqa: PLR2004 - the last one
            asked.set()
        await store.commit([AddEvent("closing", number, "t", Prompt("hi", "turn"))])

    before = await _everything(store)
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask)
        await asked.wait()
        await store.aclose()
    try:
        await store.commit([])
    except StoreUnavailable:
        pass
    else:
        raise AssertionError("it committed after it was closed")
    again = make_store()
    await again.open()
    found = await again.session("closing")
    same(found and found.last, 50, "the last number, with fifty commits on their way when it was closed")
    await again.commit([Retract("closing", 1)])
    same(await _everything(again), before, "what there is when it was opened again")
    await again.aclose()
