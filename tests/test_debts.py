"""Ends of execs that belong to no session: stored, or owed until they are."""

import pytest
import trio

from gateway_trio.config import parse_config
from gateway_trio.debts import Debts
from gateway_trio.store import AddExec, EndExec, StoreUnavailable
from gateway_trio.testing import AcpError, FailingStore, open_gateway

FACTS = {"status": "exited"}
END = EndExec("x", FACTS, 2.0)


@pytest.fixture
async def store():
    store = FailingStore(durable=True)
    await store.commit([AddExec("x", None, "ann", "true", (), 1.0)])
    return store


async def test_what_the_store_takes_is_not_owed(store):
    waits = []
    debts = Debts(store, waits.append)
    await debts.put(END)
    assert store.execs["x"][1] == END
    assert debts.settled
    assert waits == []
    await debts.save()


async def test_what_it_does_not_take_is_owed_until_it_does(store):
    waits = []
    debts = Debts(store, waits.append)
    store.failing = True
    await debts.put(END)
    assert waits == [debts]
    with pytest.raises(StoreUnavailable):
        await debts.save()
    assert not debts.settled
    store.failing = False
    await debts.save()
    assert debts.settled
    assert store.execs["x"][1] == END


@pytest.mark.parametrize("happens", [True, False])
async def test_one_that_was_given_up_is_owed_whatever_became_of_it(store, happens, autojump_clock):
    debts = Debts(store, lambda _: None)
    store.stall(happens=happens)
    with trio.move_on_after(1) as limit:
        await debts.put(END)
    assert limit.cancelled_caught
    assert not debts.settled
    store.go()
    await debts.save()
    assert debts.settled
    assert store.execs["x"][1] == END


@pytest.mark.parametrize("happens", [True, False])
async def test_an_exec_whose_audit_row_took_too_long_is_audited_as_never_run(happens, autojump_clock):
    """It was refused; so its row, if it came to be after all, is not to say for ever that it runs."""
    config = parse_config('[quick_commands.t]\ntype = "exec"\ncommand = "true"\n', environ={})
    store = FailingStore(durable=True)
    with trio.fail_after(7200):
        async with open_gateway(config, store=store) as lab:
            client = await lab.acp()
            store.stall(happens=happens)
            with pytest.raises(AcpError) as caught:
                await client.call("_gateway-trio/exec", {"name": "t"})
            assert caught.value.reason == "store_unavailable"
            store.go()
            await trio.sleep(60)
            assert not await store.unfinished()
            assert [end.facts["status"] for _, end in store.execs.values()] == ["spawn_failed"] * happens
