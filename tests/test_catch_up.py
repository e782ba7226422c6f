"""Those far behind take turns, and what happens now goes first."""

import itertools

import trio
import trio.testing

from gateway_trio.catch_up import CatchUp, Commits
from gateway_trio.testing import FailingStore, ScriptedAgent, open_gateway


async def test_one_at_a_time_and_others_get_on_between_two_batches(autojump_clock):
    catch_up, made, passes = CatchUp(Commits()), [], 0

    async def far_behind(name):
        for _ in range(3):
            async with catch_up.turn():
                made.append((name, passes))

    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            for name in "ab":
                nursery.start_soon(far_behind, name)
            while len(made) < 6:
                await trio.lowlevel.checkpoint()
                passes += 1
    assert "".join(name for name, _ in made) in ("ababab", "bababa"), "in turn"
    between = [later - sooner for (_, sooner), (_, later) in itertools.pairwise(made)]
    assert min(between) >= 4, "each batch lets the others pass several times"


async def test_a_batch_waits_for_commits_but_not_for_long(autojump_clock):
    commits = Commits()
    catch_up = CatchUp(commits)

    async def commit(seconds):
        with commits.one():
            await trio.sleep(seconds)

    async def when():
        async with catch_up.turn():
            return trio.current_time()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            assert await when() == 0, "there is none"
            nursery.start_soon(commit, 0.002)
            nursery.start_soon(commit, 0.003)
            await trio.testing.wait_all_tasks_blocked()
            assert await when() == 0.003
            nursery.start_soon(commit, 5)
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            assert await when() == start + 0.005


async def test_a_gateways_commits_are_counted(autojump_clock):
    store = FailingStore(1000, durable=True)
    with trio.fail_after(60):
        async with open_gateway(agent=ScriptedAgent(), store=store) as lab:
            client = await lab.acp()
            session = await client.new_session()
            commits = lab.gateway.sessions.commits
            await commits.until_none()
            store.stall()
            await client.ask_prompt(session, "hi")
            await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(1) as waited:
                await commits.until_none()
            assert waited.cancelled_caught
            store.go()
            await client.until_state("completed")
            await commits.until_none()
