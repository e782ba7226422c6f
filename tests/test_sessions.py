"""The registry: how many sessions there may be, and which one goes for a new one, while others come and go."""

import pytest
import trio
import trio.testing

from gateway_trio import Config
from gateway_trio.core.commands import ExecCommand, Role
from gateway_trio.core.cursor import Missing
from gateway_trio.core.events import Change, Kind, Message, Update
from gateway_trio.registry import Registry, TooManySessions
from gateway_trio.sessions import DAY_SECONDS, KEYS_KEPT, KEYS_OF_A_DAY, PastWork
from gateway_trio.store import StoreUnavailable
from gateway_trio.testing import FailingStore, ScriptedAgent, open_gateway
from gateway_trio.tokens import Principal

ANN = Principal("ann", Role.USER)
EACH = 3


@pytest.fixture
def store():
    return FailingStore(1000, durable=True)


@pytest.fixture
def registry(store):
    made = Registry(store, queue_limit=3, keep_bytes=10_000, each=EACH)
    made.rests = lambda _: True
    return made


async def ids(store):
    """The stored sessions, oldest first."""
    return [row.id for row in await store.sessions("ann", skip=0, limit=100)][::-1]


async def test_the_oldest_goes_for_a_new_one(registry, store):
    made = [(await registry.create(ANN)).id for _ in range(EACH + 2)]
    assert await ids(store) == made[2:]
    assert [session.id for session in registry] == made[2:]


async def test_many_at_once_are_not_more_than_there_may_be(registry, store):
    refused = []

    async def create():
        try:
            await registry.create(ANN)
        except TooManySessions as fault:
            refused.append(fault)

    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(create)
        assert len(await ids(store)) == EACH
    assert len(refused) < 40
    for _ in range(5):
        await registry.create(ANN)
        assert len(await ids(store)) == EACH, "and each was counted once"


async def test_where_each_is_in_use_there_is_no_room_and_the_refused_do_not_count(registry, store):
    made = [await registry.create(ANN) for _ in range(EACH)]
    with made[0].held(), made[1].held():
        with made[2].held():
            for _ in range(3):
                with pytest.raises(TooManySessions):
                    await registry.create(ANN)
        new = await registry.create(ANN)
    assert await ids(store) == [made[0].id, made[1].id, new.id]


@pytest.mark.parametrize("happens", [True, False])
async def test_those_that_were_given_up_take_no_more_room_than_there_is(registry, store, happens, autojump_clock):
    """A client that hangs up while its session is made, again and again."""
    for _ in range(10):
        store.stall(happens=happens)
        with trio.move_on_after(1) as limit:
            await registry.create(ANN)
        assert limit.cancelled_caught
        store.go()
        await store.commit(())
    assert len(await ids(store)) <= EACH
    for _ in range(EACH):
        new = await registry.create(ANN)
        assert new.id in await ids(store)
    assert len(await ids(store)) <= EACH


async def test_one_that_could_not_go_is_there_as_it_was(registry, store):
    made = [await registry.create(ANN, name=str(n)) for n in range(EACH)]
    store.failing = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await registry.create(ANN)
    store.failing = False
    assert registry.find(made[0].id) is made[0]
    assert await registry.named(ANN, "0") is made[0]
    await registry.create(ANN)
    assert len(await ids(store)) == EACH


async def test_nobody_gets_one_that_is_about_to_go(registry, store, autojump_clock):
    """It is asked for while its last commit is on the way."""
    oldest, *_ = [await registry.create(ANN, name=str(n)) for n in range(EACH)]
    found = []

    async def get(by):
        found.append(await by())

    store.stall()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(registry.create, ANN)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(get, lambda: registry.get(oldest.id))
        nursery.start_soon(get, lambda: registry.named(ANN, "0"))
        await trio.testing.wait_all_tasks_blocked()
        assert found == [], "whether it goes is not known yet"
        store.go()
    assert found == [None, None]
    assert oldest.id not in await ids(store)


def remembered(session, times):
    """Let the session remember a key for each time; return the numbers of those that it knows then.

    The first one has not ended.
    """
    over = Change("turn", "t", "completed", 1, ends=True)
    for number, at in enumerate(times):
        ended = None if number == 0 else over
        session.remember(str(number), PastWork(f"t{number}", "", session, ended, 2), at)
    return [number for number, _ in enumerate(times) if session.joined(str(number)) is not None]


async def test_the_newest_keys_are_kept_and_those_of_what_has_not_ended(registry):
    session = await registry.create(ANN)
    two_days_apart = [number * 2 * DAY_SECONDS for number in range(KEYS_KEPT + 10)]
    assert remembered(session, two_days_apart) == [0, *range(11, KEYS_KEPT + 10)]


async def test_the_keys_of_a_day_are_kept(registry):
    session = await registry.create(ANN)
    each = DAY_SECONDS / (2 * KEYS_KEPT)
    kept = remembered(session, [number * each for number in range(4 * KEYS_KEPT)])
    assert kept == [0, *range(4 * KEYS_KEPT - 1 - 2 * KEYS_KEPT, 4 * KEYS_KEPT)]


async def test_so_many_keys_of_one_day_are_too_many(registry):
    session = await registry.create(ANN)
    kept = remembered(session, [1.0] * (KEYS_OF_A_DAY + 10))
    assert kept == [0, *range(11, KEYS_OF_A_DAY + 10)]


async def test_of_what_has_ended_only_its_key_and_outcome_are_kept(autojump_clock):
    agent = ScriptedAgent({"hi": ["hello"]})
    async with open_gateway(agent=agent) as lab:
        client = await lab.acp()
        id_ = await client.new_session()
        for _ in range(2):
            assert (await client.prompt(id_, "hi", key="k"))["stopReason"] == "end_turn"
            kept = lab.gateway.sessions.find(id_).joined("k")
            assert isinstance(kept, PastWork)
            assert (kept.ended.state, kept.session.id) == ("completed", id_)
            assert kept.ended_at == kept.session.log.last
    assert len(agent.turns) == 1


async def test_the_same_goes_for_a_quick_command(tmp_path):
    count = ExecCommand("count", command=f"echo x >> {tmp_path}/count")
    async with open_gateway(Config(quick_commands={"count": count})) as lab:
        client = await lab.acp()
        id_ = await client.new_session()
        for _ in range(2):
            ours = (await client.prompt(id_, "/count", key="k"))["_meta"]["gateway-trio"]
            assert ours["status"] == "exited"
            assert isinstance(lab.gateway.sessions.find(id_).joined("k"), PastWork)
    assert (tmp_path / "count").read_text() == "x\n"


def other_gateway(store, keep_bytes):
    """Return the registry of another gateway with the same store."""
    made = Registry(store, queue_limit=3, keep_bytes=keep_bytes, each=EACH)
    made.rests = lambda _: True
    return made


@pytest.mark.parametrize("keep_bytes", [100, 150_000, 10**9])
async def test_the_newest_of_a_long_session_comes_back_in_order(store, registry, keep_bytes):
    """However many pages it takes to read them."""
    session = await registry.create(ANN)
    for _ in range(900):
        await session.record("t", lambda _: [Update({"title": "x" * 100})])
    log = (await other_gateway(store, keep_bytes).get(session.id)).log
    kept = [entry.number for entry in log]
    assert kept == list(range(log.trimmed + 1, 901))
    assert log.last == 900
    each = next(iter(log)).bytes
    assert abs(len(kept) - min(900, keep_bytes / each)) <= 2


async def test_a_page_has_nothing_that_the_log_still_has(registry):
    """A text that grows there is not whole in the store, and whoever comes later gets the same page."""
    session = await registry.create(ANN)

    async def more():
        for _ in range(40):
            await session.record("u", lambda _: [Update({"title": "x" * 100})])

    await more()
    (message,) = await session.record("t", lambda _: [Message(Kind.ANSWER)])
    await session.say("t", Kind.ANSWER, "half ", more)
    await session.save()
    before = session.log.next_kept(1)
    assert 1 < before <= message.number
    page = await session.page(Missing(1, before))
    assert [entry.number for entry in page] == list(range(1, before))
    await session.say("t", Kind.ANSWER, "and half", more)
    session.log.close("t")
    await session.save()
    await more()
    assert session.log.get(message.number) is None
    read = await session.page(Missing(1, session.log.next_kept(1)))
    assert read is page, "it was kept"
    rest = await session.page(Missing(before, session.log.next_kept(before)))
    (found,) = [entry for entry in rest if entry.number == message.number]
    assert str(found.text) == "half and half"
