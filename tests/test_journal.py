"""How a session's log and the store behind it stand to each other, while the store fails, stalls and comes back."""

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gateway_trio.catch_up import Commits
from gateway_trio.core.event_log import Log
from gateway_trio.core.events import Change, Kind, Message, Prompt, Update
from gateway_trio.core.session import OUTCOMES, TurnState
from gateway_trio.journal import Journal
from gateway_trio.saver import Saver
from gateway_trio.store import (
    AddExec,
    AddSession,
    AddTurn,
    EndExec,
    MoveTurn,
    SetText,
    StoreUnavailable,
)
from gateway_trio.testing import FailingStore

S = TurnState
ALL = 1 << 40
PATIENCE = 5.0  # virtual seconds until a commit is given up
FACTS = {"status": "exited"}


class Watched(FailingStore):
    """A store that looks, after each commit, at what a crash would leave: `journal` is what was told.

    `taken` has the changes of each commit that it was asked for.
    """

    def __init__(self):
        super().__init__(10_000, durable=True)
        self.journal = None
        self.taken = []

    async def commit(self, changes):
        self.taken.append(tuple(changes))
        try:
            await super().commit(changes)
        finally:
            await self.look()

    async def look(self):
        """Whoever has an outcome here has its whole text here."""
        rows = {row.number: row for row in await self.events("s", 1, keep_bytes=ALL)}
        ended = {r.owner for r in rows.values() if isinstance(r.body, Change) and r.body.ends}
        ended |= {work.id for work in await self.keyed("s", 1000) if work.state in OUTCOMES}
        for entry in self.journal.log if self.journal else ():
            if isinstance(entry.body, Message) and entry.owner in ended:
                row = rows.get(entry.number)
                assert row is not None, f"{entry.owner} has ended, and has no message {entry.number}"
                assert (row.owner, row.text) == (entry.owner, str(entry.text))


async def opened(unsaved=lambda _: None):
    """A store with one session, and its journal."""
    store = Watched()
    await store.commit([AddSession("s", "ann")])
    store.journal = Journal("s", Log(ALL, backed=True), store, unsaved, Commits())
    return store, store.journal


def change(owner, state, *, ends=False):
    return Change("turn" if owner[0] == "t" else "exec", owner, state, 1, ends=ends)


async def begin(journal, owner):
    """Have a turn (`t…`) or an exec (`e…`) accepted, with its id as its key."""
    if owner[0] == "t":
        rows = (
            AddTurn(owner, "s", owner, "d", principal="ann"),
            MoveTurn(owner, frozenset({S.QUEUED}), S.RUNNING),
        )
    else:
        rows = (AddExec(owner, "s", "ann", "x", (), 1.0, key=owner),)
    with trio.move_on_after(PATIENCE):
        await journal.record(owner, lambda _: [Prompt("hi", "turn"), change(owner, "running")], *rows)
        return True
    return False


async def say(journal, owner, text, kind=Kind.ANSWER):
    """As an agent does, whose message must be stored first, or an exec, whose output must arrive."""
    write = journal.record if owner[0] == "t" else journal.put
    await journal.say(owner, kind, text, lambda: write(owner, lambda _: [Message(kind)]))


async def end(journal, owner):
    """Tell how it ended, whatever the store does."""
    if owner[0] == "t":
        row = MoveTurn(owner, frozenset({S.QUEUED, S.RUNNING}), S.COMPLETED)
    else:
        row = EndExec(owner, FACTS, 2.0)
    told = None
    outcome = [change(owner, "completed", ends=True)]
    try:
        with trio.move_on_after(PATIENCE):
            told = await journal.record(owner, lambda _: outcome, row)
    except StoreUnavailable:
        pass
    finally:
        if told is None:
            journal.insist(owner, lambda _: outcome, row)


async def stored(store):
    return [(row.number, row.owner, row.body, row.text) for row in await store.events("s", 1, keep_bytes=ALL)]


def told(journal):
    return [(entry.number, entry.owner, entry.body, str(entry.text)) for entry in journal.log]


# --- what is owed goes with its text ---


@pytest.mark.parametrize("owner", ["t1", "e1"])
async def test_an_outcome_that_is_owed_is_stored_with_its_text_by_whoever_comes_next(owner):
    store, journal = await opened()
    await begin(journal, owner)
    await say(journal, owner, "half ")
    await journal.save()
    store.failing = True
    await say(journal, owner, "and half")
    await end(journal, owner)
    store.failing = False
    await begin(journal, "t2")
    assert await stored(store) == told(journal)
    assert [text for *_, text in await stored(store) if text] == ["half and half"]
    assert journal.settled


async def test_so_is_the_text_of_a_message_that_the_store_never_had():
    store, journal = await opened()
    await begin(journal, "e1")
    store.failing = True
    await say(journal, "e1", "all of it")
    await end(journal, "e1")
    store.failing = False
    await begin(journal, "t2")
    assert await stored(store) == told(journal)
    assert journal.settled


async def test_so_are_the_texts_of_several_who_owe_each_in_its_place():
    store, journal = await opened()
    for owner in ("t1", "e1", "t2", "e2"):
        await begin(journal, owner)
    await say(journal, "t1", "a")
    await say(journal, "t2", "b")
    store.failing = True
    for owner in ("e2", "t2", "e1", "t1"):
        await say(journal, owner, f" of {owner}")
    for owner in ("e1", "t2", "e2", "t1"):
        await end(journal, owner)
    store.failing = False
    await begin(journal, "t3")
    assert await stored(store) == told(journal)
    assert sorted(text for *_, text in await stored(store) if text) == [" of e1", " of e2", "a of t1", "b of t2"]
    assert journal.settled


@pytest.mark.parametrize("happens", [True, False])
async def test_so_is_that_of_an_outcome_whose_commit_was_given_up(happens, autojump_clock):
    store, journal = await opened()
    await begin(journal, "t1")
    await say(journal, "t1", "half ")
    await journal.save()
    await say(journal, "t1", "and half")
    store.stall(happens=happens)
    await end(journal, "t1")
    store.go()
    await begin(journal, "t2")
    assert await stored(store) == told(journal)
    assert journal.settled


async def test_where_nothing_is_owed_nobody_stores_the_text_of_another():
    store, journal = await opened()
    for owner in ("t1", "t2"):
        await begin(journal, owner)
        await say(journal, owner, "half")
    await journal.record("t1", lambda _: [Update({})])
    texts = [change.number for change in store.taken[-1] if isinstance(change, SetText)]
    assert [journal.log.get(number).owner for number in texts] == ["t1"]


# --- and so it is whatever happens ---

# Long beside the saver's first attempts, so that much begins and ends between two of them.
waits = st.integers(0, 40).map(lambda halves: halves / 2)
words = st.tuples(
    st.sampled_from([0.0, 0.5, 3.0]),
    st.sampled_from(["a", "bc", "é\n"]),
    st.sampled_from([Kind.ANSWER, Kind.THOUGHT]),
)
OWNERS = ("t1", "e1", "t2", "e2", "t3", "e3", "t4", "e4")
SCRIPTS = st.tuples(waits, st.lists(words, min_size=1, max_size=4))
WORKS = st.fixed_dictionaries(dict.fromkeys(OWNERS, SCRIPTS))
modes = st.sampled_from(["fail", "fail", "go", "stall", "stall and happen"])
FAULTS = st.lists(st.tuples(waits, modes), min_size=1, max_size=6)


async def walk(store, journal, saver, works, faults):
    async def work(owner, before, script):
        await trio.sleep(before)
        try:
            if not await begin(journal, owner):
                return
        except StoreUnavailable:
            return
        try:
            for wait, text, kind in script:
                await trio.sleep(wait)
                with trio.move_on_after(PATIENCE):
                    await say(journal, owner, text, kind)
        except StoreUnavailable:  # then the agent has failed
            pass
        await end(journal, owner)

    def let(mode):
        store.go()
        store.failing = mode == "fail"
        if mode.startswith("stall"):
            store.stall(happens=mode == "stall and happen")

    async def fail():
        for wait, mode in faults:
            await trio.sleep(wait)
            let(mode)
        await trio.sleep(5)
        let("go")

    async with trio.open_nursery() as services:
        services.start_soon(saver.run)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            for owner, script in works.items():
                nursery.start_soon(work, owner, *script)
        await trio.sleep(120)
        services.cancel_scope.cancel()


@given(WORKS, FAULTS)
@settings(
    max_examples=500,
    suppress_health_check=list(HealthCheck),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to make one smaller takes minutes
)
def test_no_outcome_is_stored_before_its_whole_text(works, faults):
    async def main():
        saver = Saver()
        store, journal = await opened(saver.add)
        await walk(store, journal, saver, works, faults)
        assert journal.settled
        assert await stored(store) == told(journal), "and in the end it has all that was told"

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
