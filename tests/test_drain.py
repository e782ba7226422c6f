"""The drain in memory and in virtual time, so that every time is exact; and at random, held to the promises."""

from __future__ import annotations

import contextlib
import random
from functools import partial

import pytest
import trio
import trio.testing
import trio_websocket

from gateway_trio import Config, serve
from gateway_trio.agents import AgentError, TextDelta
from gateway_trio.config import DrainConfig, ExecConfig, SessionConfig
from gateway_trio.core.events import Change
from gateway_trio.core.lifecycle import Action
from gateway_trio.core.phases import Phase
from gateway_trio.memory_store import MemoryStore
from gateway_trio.testing import (
    STUCK,
    AcpError,
    FailingStore,
    Lab,
    MemoryListener,
    ScriptedAgent,
    open_gateway,
    ours_of,
)
from gateway_trio.turns import ABANDONED_LIMIT

LIMIT = 7200  # virtual seconds


@contextlib.asynccontextmanager
async def opened(config=None, *, agent, **more):
    """Open a gateway; at the end, also where the test fails, agents that are stuck are let go."""
    async with open_gateway(config, agent=agent, **more) as lab:
        try:
            yield lab
        finally:
            agent.release()


def now() -> float:
    return trio.current_time()


def about(seconds: float):
    return pytest.approx(seconds, abs=1e-6)


async def error_of(client, id_: int) -> AcpError:
    with pytest.raises(AcpError) as caught:
        await client.answer(id_)
    return caught.value


async def begin(lab, prompt: str, client=None):
    """Return a client, its new session, and the id of a prompt whose turn runs in it."""
    client = client or await lab.acp()
    session = await client.new_session()
    id_ = await client.ask_prompt(session, prompt)
    await client.until(
        lambda f: (
            f.get("params", {}).get("sessionId") == session
            and ours_of(f).get("turn", {}).get("state") == "running"
        )
    )
    return client, session, id_


async def close_code(client) -> int:
    """Wait until the gateway has closed an `/acp` connection, and return the code."""
    with pytest.raises(EOFError):
        await client.until(lambda _: False)
    return client.closed.code


def phases_of(client) -> list[str]:
    return [f["params"]["phase"] for f in client.frames if f.get("method") == "_gateway-trio/phase"]


def outcomes(gateway) -> dict[str, list[str]]:
    """Return the states of every turn that the logs have, in their order."""
    states: dict[str, list[str]] = {}
    for session in gateway.sessions:
        for entry in session.log:
            if isinstance(entry.body, Change) and entry.body.work == "turn":
                states.setdefault(entry.body.id, []).append(entry.body.state)
    return states


# --- grace ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["shutdown", "restart"])
async def test_the_grace_ends_a_turn_with_its_partial_text(autojump_clock, reason):
    agent = ScriptedAgent({"long": ["half", 100, "whole"]})
    with trio.fail_after(LIMIT):
        async with opened(agent=agent) as lab:
            client, _, id_ = await begin(lab, "long")
            watcher = await lab.chat()
            start = now()
            lab.gateway.drain(reason, by="the test")
            error = await error_of(client, id_)
            assert now() - start == about(20)
            assert (error.code, error.reason, error.data["admitted"]) == (-32800, "interrupted", True)
            assert client.text() == "half"
            assert await close_code(client) == await watcher.close_code() == 1012
            await lab.gateway.closed.wait()
            assert now() - start == about(20), "nothing was left to wait for"
            report = lab.gateway.report
    assert report.reason == reason
    assert report.asked_by == "the test"
    assert report.phases == {
        "draining": about(20),
        "cancelling": about(0),
        "finishing": about(0),
        "closing": about(0),
    }
    assert (report.turns_running, report.turns_finished, report.turns_interrupted) == (1, 0, 1)
    assert (report.turns_queued, report.turns_abandoned) == (0, ())
    assert (report.connections_told, report.connections_closed, report.connections_forced) == (2, 2, 0)
    assert report.total_seconds == about(20)
    assert report.overhead_seconds == about(0)
    assert not report.cut
    # Of notices that wait only the newest is sent, so those of one moment may be one.
    assert phases_of(client)[:2] == ["open", "draining"]
    assert phases_of(client)[-1] == "closing"


async def test_the_drain_ends_with_its_last_turn_and_not_with_the_grace(autojump_clock):
    agent = ScriptedAgent({"3": [3, "done"], "7": [7, "done"]})
    with trio.fail_after(LIMIT):
        async with opened(agent=agent) as lab:
            client, _, three = await begin(lab, "3")
            _, _, seven = await begin(lab, "7", client)
            start = now()
            lab.gateway.drain("shutdown")
            assert await client.answer(three) == {"stopReason": "end_turn"}
            assert now() - start == about(3)
            assert lab.gateway.phase is Phase.DRAINING
            assert await client.answer(seven) == {"stopReason": "end_turn"}
            assert await close_code(client) == 1012
            assert now() - start == about(7)
            await lab.gateway.closed.wait()
    report = lab.gateway.report
    assert (report.turns_running, report.turns_finished, report.turns_interrupted) == (2, 2, 0)
    assert report.total_seconds == about(7)


async def test_a_drain_of_an_idle_gateway_takes_no_time(autojump_clock):
    with trio.fail_after(LIMIT):
        async with open_gateway() as lab:
            client = await lab.acp()
            start = now()
            lab.gateway.drain("shutdown")
            assert await close_code(client) == 1012
            await lab.gateway.closed.wait()
            assert now() == start


async def test_a_turn_sees_that_it_should_cut_itself_short(autojump_clock):
    async def short(turn, emit):
        await turn.draining.wait()
        await trio.sleep(1)

    agent = ScriptedAgent({"polite": ["a", short, "b"]})
    with trio.fail_after(LIMIT):
        async with opened(agent=agent) as lab:
            client, _, id_ = await begin(lab, "polite")
            lab.gateway.drain("operator")
            await trio.sleep(30)
            assert not agent.turns[0].draining.is_set(), "an operator's drain leaves running turns alone"
            start = now()
            lab.gateway.drain("restart")
            assert await client.answer(id_) == {"stopReason": "end_turn"}
            assert now() - start == about(1)
            assert client.text() == "ab"


# --- reasons ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["operator", "backend"])
async def test_a_drain_whose_cause_can_pass_has_no_deadline(autojump_clock, reason):
    agent = ScriptedAgent({"long": [500, "done"]})
    with trio.fail_after(LIMIT):
        async with opened(agent=agent) as lab:
            client, session, id_ = await begin(lab, "long")
            lab.gateway.drain(reason)
            assert lab.gateway.status()["remainingMs"] is None
            assert await client.answer(id_) == {"stopReason": "end_turn"}
            assert now() == about(500)
            assert lab.gateway.phase is Phase.DRAINING
            assert lab.gateway.undrain(reason)
            assert await client.prompt(session, "hello") == {"stopReason": "end_turn"}
    assert lab.gateway.report.turns_running == 0


async def test_an_undrain_starts_each_sessions_first_turn(autojump_clock):
    agent = ScriptedAgent({"first": [1], "second": [10], "third": [10]})
    with trio.fail_after(LIMIT):
        async with opened(agent=agent) as lab:
            client = await lab.acp()
            ids = []
            sessions = []
            for _ in range(2):
                _, session, id_ = await begin(lab, "first", client)
                sessions.append(session)
                ids += [id_, await client.ask_prompt(session, "second"), await client.ask_prompt(session, "third")]
            await client.until(lambda f: ours_of(f).get("turn", {}).get("position") == 1)
            await trio.testing.wait_all_tasks_blocked()
            lab.gateway.drain("operator")
            assert await client.answer(ids[0]) == await client.answer(ids[3]) == {"stopReason": "end_turn"}
            await trio.sleep(100)
            assert [turn.text for turn in agent.turns] == ["first", "first"], "none starts while draining"
            assert lab.gateway.status()["turns"] == 0
            start = now()
            assert lab.gateway.undrain()
            await trio.testing.wait_all_tasks_blocked()
            assert [turn.text for turn in agent.turns[2:]] == ["second", "second"]
            for id_ in ids:
                assert await client.answer(id_) == {"stopReason": "end_turn"}
            assert now() - start == about(20)
    assert {tuple(states) for states in outcomes(lab.gateway).values()} == {("queued", "running", "completed")}


async def test_each_reason_must_pass(autojump_clock):
    with trio.fail_after(LIMIT):
        async with open_gateway() as lab:
            gateway = lab.gateway
            gateway.drain("operator", by="a", why="a look")
            gateway.drain("backend", by="b")
            gateway.drain("operator", by="c")
            assert gateway.status()["asked"]["operator"]["by"] == "a", "the first who asked stands"
            assert gateway.undrain("backend")
            assert gateway.phase is Phase.DRAINING
            assert not gateway.undrain("backend")
            assert gateway.undrain("operator")
            assert gateway.phase is Phase.OPEN
            assert not gateway.undrain("operator")


async def test_a_restart_can_be_taken_back_until_turns_are_cancelled(autojump_clock):
    agent = ScriptedAgent({"long": ["a", 100, "b"], "stuck": [STUCK]})
    with trio.fail_after(LIMIT):
        async with opened(agent=agent) as lab:
            client, session, id_ = await begin(lab, "long")
            lab.gateway.drain("restart")
            await trio.sleep(19)
            assert lab.gateway.status()["remainingMs"] == 1000
            assert lab.gateway.undrain()
            assert lab.gateway.phase is Phase.OPEN
            assert await client.answer(id_) == {"stopReason": "end_turn"}
            assert now() == about(100), "the deadline went with its reason"
            start = now()
            await client.ask_prompt(session, "stuck")
            await client.until(lambda _: agent.running)
            lab.gateway.drain("restart")
            await trio.sleep(21)
            assert lab.gateway.phase is Phase.CANCELLING
            assert not lab.gateway.undrain()
            await lab.gateway.closed.wait()
            assert now() - start == about(25), "the second restart's own deadline"
            agent.release()
    assert lab.gateway.report.reason == "restart"
    assert [p for p in phases_of(client) if p in ("open", "draining")] == ["open", "draining", "open", "draining"]


@pytest.mark.parametrize("order", [("shutdown", "restart"), ("restart", "shutdown")])
async def test_a_shutdown_stands_over_a_restart(autojump_clock, order):
    agent = ScriptedAgent({"long": [100]})
    with trio.fail_after(LIMIT):
        async with opened(agent=agent) as lab:
            await begin(lab, "long")
            start = now()
            lab.gateway.drain(order[0])
            await trio.sleep(5)
            lab.gateway.drain(order[1])
            lab.gateway.undrain()
            assert lab.gateway.phase is Phase.DRAINING
            assert not lab.gateway.undrain("shutdown")
            await lab.gateway.closed.wait()
            assert now() - start == about(20), "the first deadline stands"
    assert lab.gateway.report.reason == "shutdown"


@pytest.mark.parametrize(
    ("first", "second", "at"),
    [(10, 50, 10), (10, 2, 3), (10, 0, 1), (None, None, 20), (None, 100, 20)],
)
async def test_a_deadline_only_moves_earlier(autojump_clock, first, second, at):
    agent = ScriptedAgent({"long": [100]})
    with trio.fail_after(LIMIT):
        async with opened(agent=agent) as lab:
            client, _, id_ = await begin(lab, "long")
            start = now()
            lab.gateway.drain("shutdown", grace_seconds=first)
            await trio.sleep(1)
            lab.gateway.drain("shutdown", grace_seconds=second)
            await error_of(client, id_)
            assert now() - start == about(at)


async def test_what_waits_in_memory_is_interrupted_when_turns_are_cancelled(autojump_clock):
    agent = ScriptedAgent({"long": [100]})
    with trio.fail_after(LIMIT):
        async with opened(agent=agent) as lab:
            client, session, first = await begin(lab, "long")
            second = await client.ask_prompt(session, "second")
            await client.until(
                lambda f: ours_of(f).get("turn", {}).get("position") == 0 and ours_of(f)["turn"]["seq"] > 1
            )
            start = now()
            lab.gateway.drain("restart")
            for id_ in (first, second):
                assert (await error_of(client, id_)).reason == "interrupted"
            assert now() - start == about(20)
            assert await close_code(client) == 1012
    assert len(agent.turns) == 1, "it was never started"
    assert sorted(map(tuple, outcomes(lab.gateway).values())) == [
        ("queued", "interrupted"),
        ("queued", "running", "interrupted"),
    ]
    assert (lab.gateway.report.turns_interrupted, lab.gateway.report.turns_queued) == (1, 1)


# --- turns that ignore cancellation -------------------------------------------------------------------


async def test_an_abandoned_agent_is_named_and_costs_only_its_cleanup(autojump_clock):
    agent = ScriptedAgent({"stuck": ["said", STUCK, "too late"], "long": ["part", 100]})
    with trio.fail_after(LIMIT):
        async with opened(agent=agent) as lab:
            client, _, stuck = await begin(lab, "stuck")
            other, _, long = await begin(lab, "long")
            start = now()
            lab.gateway.drain("shutdown")
            await error_of(other, long)
            assert now() - start == about(20), "another turn does not wait for it"
            assert (await error_of(client, stuck)).reason == "interrupted"
            assert now() - start == about(25)
            assert await close_code(client) == await close_code(other) == 1012
            await lab.gateway.closed.wait()
            assert now() - start == about(25)
            report = lab.gateway.report
            assert report.turns_abandoned == (agent.turns[0].id,)
            assert report.turns_interrupted == 2
            assert not report.cut
            agent.release()
    assert agent.running == 0


@pytest.mark.parametrize("how", ["swallows", "works on"])
async def test_an_agent_that_takes_its_cancel_for_a_nuisance(how, autojump_clock):
    async def swallow(turn, emit):
        with contextlib.suppress(trio.Cancelled):
            await trio.sleep(100)

    async def work_on(turn, emit):
        try:
            await trio.sleep(100)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(4)

    agent = ScriptedAgent({"rude": ["part", {"swallows": swallow, "works on": work_on}[how]]})
    with trio.fail_after(LIMIT):
        async with opened(agent=agent) as lab:
            client, _, id_ = await begin(lab, "rude")
            start = now()
            lab.gateway.drain("shutdown")
            if how == "swallows":
                assert await client.answer(id_) == {"stopReason": "end_turn"}, "it came to its end after all"
                assert now() - start == about(20)
            else:
                assert (await error_of(client, id_)).reason == "interrupted"
                assert now() - start == about(24)
            assert await close_code(client) == 1012
    assert lab.gateway.report.turns_abandoned == ()


async def test_an_abandoned_agent_says_nothing_more(autojump_clock):
    caught = []

    async def speak(turn, emit):
        try:
            await emit(TextDelta("too late"))
        except BaseException as error:
            caught.append(type(error))
            raise

    agent = ScriptedAgent({"stuck": ["said", STUCK, speak]})
    with trio.fail_after(LIMIT):
        async with opened(agent=agent) as lab:
            client, session, id_ = await begin(lab, "stuck")
            start = now()
            await client.notify("session/cancel", {"sessionId": session})
            assert await client.answer(id_) == {"stopReason": "cancelled"}
            assert now() - start == about(5)
            assert lab.gateway.status()["abandoned"] == [agent.turns[0].id]
            assert await client.prompt(session, "next") == {"stopReason": "end_turn"}
            agent.release()
            await trio.testing.wait_all_tasks_blocked()
            assert lab.gateway.status()["abandoned"] == [], "it is taken off the list when it ends after all"
            assert caught, "its next emit raises"
            assert client.text() == "saidnext"
    assert lab.gateway.report.turns_abandoned == ()


async def test_abandoned_agents_are_limited(autojump_clock):
    agent = ScriptedAgent({"stuck": [STUCK]})
    with trio.fail_after(LIMIT):
        async with opened(agent=agent) as lab:
            client = await lab.acp()
            for _ in range(ABANDONED_LIMIT):
                _, session, id_ = await begin(lab, "stuck", client)
                await client.notify("session/cancel", {"sessionId": session})
                assert await client.answer(id_) == {"stopReason": "cancelled"}
            session = await client.new_session()
            error = await error_of(client, await client.ask_prompt(session, "hello"))
            assert (error.code, error.reason, error.data["admitted"]) == (-32011, "busy", False)
            assert len(agent.turns) == ABANDONED_LIMIT
            agent.release()
            await trio.testing.wait_all_tasks_blocked()
            assert await client.prompt(session, "hello") == {"stopReason": "end_turn"}


# --- limits of a turn ---------------------------------------------------------------------------------


async def test_a_turn_that_says_nothing_for_too_long_fails(autojump_clock):
    agent = ScriptedAgent({"slow": ["a", 9, "b", 9, "c", 11, "d"]})
    config = Config(session=SessionConfig(turn_idle_seconds=10))
    with trio.fail_after(LIMIT):
        async with opened(config, agent=agent) as lab:
            client, session, id_ = await begin(lab, "slow")
            error = await error_of(client, id_)
            assert now() == about(28)
            assert (error.code, error.reason, error.data["admitted"]) == (-32603, "turn_idle", True)
            assert client.text() == "abc"
            assert await client.prompt(session, "next") == {"stopReason": "end_turn"}


async def test_a_turn_that_takes_too_long_fails_however_much_it_says(autojump_clock):
    agent = ScriptedAgent({"chatty": ["x", 9] * 20, "stuck": [STUCK]})
    config = Config(session=SessionConfig(turn_idle_seconds=10, turn_seconds=60))
    with trio.fail_after(LIMIT):
        async with opened(config, agent=agent) as lab:
            client, session, id_ = await begin(lab, "chatty")
            error = await error_of(client, id_)
            assert now() == about(60)
            assert error.reason == "turn_too_long"
            start = now()
            error = await error_of(client, await client.ask_prompt(session, "stuck"))
            assert error.reason == "turn_idle"
            assert now() - start == about(15), "and one that ignores its cancel has its cleanup more"
            agent.release()


async def test_a_limit_of_a_turn_holds_in_a_drain_too(autojump_clock):
    agent = ScriptedAgent({"slow": [100]})
    with trio.fail_after(LIMIT):
        async with opened(Config(session=SessionConfig(turn_idle_seconds=10)), agent=agent) as lab:
            client, _, id_ = await begin(lab, "slow")
            lab.gateway.drain("shutdown")
            assert (await error_of(client, id_)).reason == "turn_idle"
            await lab.gateway.closed.wait()
            assert now() == about(10)
    assert (lab.gateway.report.turns_finished, lab.gateway.report.turns_interrupted) == (1, 0)


# --- a store that fails or does not answer --------------------------------------------------------------


async def test_a_store_that_fails_refuses_prompts_and_the_gateway_lives(autojump_clock):
    agent, store = ScriptedAgent(), FailingStore()
    with trio.fail_after(LIMIT):
        async with opened(agent=agent, store=store) as lab:
            client, chat = await lab.acp(), await lab.chat()
            session = await client.new_session()
            await chat.send("hello")
            assert await chat.receive() == "hello"
            store.failing = True
            for _ in range(3):
                error = await error_of(client, await client.ask_prompt(session, "lost", key="k"))
                assert (error.code, error.reason, error.data["admitted"]) == (-32014, "store_unavailable", False)
            await chat.send("lost")
            assert "could not be stored" in await chat.receive()
            assert [turn.text for turn in agent.turns] == ["hello"], "the model was not called"
            assert not any("lost" in turn.text for turn in agent.turns)
            store.failing = False
            assert await client.prompt(session, "again", key="k") == {"stopReason": "end_turn"}
            await chat.send("again")
            assert await chat.receive() == "again"
    assert lab.gateway.report.reason == "shutdown"


async def test_a_store_that_fails_in_mid_turn_still_ends_it_once(autojump_clock):
    agent, store = ScriptedAgent({"long": ["a", 10, "b"]}), FailingStore()
    with trio.fail_after(LIMIT):
        async with opened(agent=agent, store=store) as lab:
            client, session, id_ = await begin(lab, "long")
            store.failing = True
            assert await client.answer(id_) == {"stopReason": "end_turn"}
            store.failing = False
            assert await client.prompt(session, "next") == {"stopReason": "end_turn"}
    assert sorted(states[-1] for states in outcomes(lab.gateway).values()) == ["completed", "completed"]


async def test_a_store_that_stalls_holds_nothing_for_longer_than_the_cleanup(autojump_clock):
    agent, store = ScriptedAgent({"long": ["a", 100]}), FailingStore()
    with trio.fail_after(LIMIT):
        async with opened(agent=agent, store=store) as lab:
            client, session, first = await begin(lab, "long")
            store.stall()
            start = now()
            second = await client.ask_prompt(session, "second")
            assert (await error_of(client, second)).reason == "store_unavailable"
            assert now() - start == about(5)
            lab.gateway.drain("shutdown", grace_seconds=1)
            assert (await error_of(client, first)).reason == "interrupted"
            assert now() - start == about(5 + 1 + 5)
            assert await close_code(client) == 1012
            await lab.gateway.closed.wait()
            assert not lab.gateway.report.cut
    assert list(outcomes(lab.gateway).values()) == [["queued", "running", "interrupted"]]


async def test_the_trees_deadline_ends_a_drain_whose_store_stalls(autojump_clock):
    agent, store = ScriptedAgent({"long": ["a", 1000], "more": ["b", 1000]}), FailingStore()
    with trio.fail_after(LIMIT):
        async with opened(agent=agent, store=store) as lab:
            client, _, _ = await begin(lab, "long")
            await begin(lab, "more", client)
            start = now()
            lab.gateway.drain("shutdown", grace_seconds=500)
            store.stall()
            await lab.gateway.closed.wait()
            assert 59.9 < now() - start <= 65.1, "the budget, and what it takes to give up the store"
            assert lab.gateway.report.cut
            assert lab.gateway.phase is Phase.CLOSED
    assert list(outcomes(lab.gateway).values()) == [["queued", "running", "interrupted"]] * 2
    assert agent.running == 0


async def test_the_trees_deadline_moves_with_its_reason(autojump_clock):
    agent = ScriptedAgent({"long": [500]})
    with trio.fail_after(LIMIT):
        async with opened(agent=agent) as lab:
            client, _, id_ = await begin(lab, "long")
            lab.gateway.drain("restart", grace_seconds=50)
            await trio.sleep(10)
            lab.gateway.undrain()
            assert await client.answer(id_) == {"stopReason": "end_turn"}, "nothing was cut at 60"
            lab.gateway.drain("restart")
            await lab.gateway.closed.wait()
            assert now() == about(500)
    assert not lab.gateway.report.cut


# --- prompts in the very moment -------------------------------------------------------------------------


async def test_a_prompt_that_is_stored_while_turns_are_cancelled_ends_interrupted(autojump_clock):
    agent, store = ScriptedAgent(), FailingStore()
    with trio.fail_after(LIMIT):
        async with opened(agent=agent, store=store) as lab:
            client = await lab.acp()
            session = await client.new_session()
            store.stall()
            id_ = await client.ask_prompt(session, "late")
            await trio.testing.wait_all_tasks_blocked()
            start = now()
            lab.gateway.drain("shutdown", grace_seconds=2)
            await trio.sleep(3)
            assert lab.gateway.phase is Phase.CANCELLING
            store.go()
            assert (await error_of(client, id_)).reason == "interrupted"
            assert now() - start == about(3)
            assert await close_code(client) == 1012
    assert list(outcomes(lab.gateway).values()) == [["queued", "interrupted"]]
    assert agent.turns == []
    assert lab.gateway.report.turns_queued == 1


@pytest.mark.parametrize("stop", ["/stop", "$/cancel_request"])
async def test_one_that_was_cancelled_before_it_was_stored_has_its_outcome_too(stop, autojump_clock):
    agent, store = ScriptedAgent(), FailingStore()
    with trio.fail_after(LIMIT):
        async with opened(agent=agent, store=store) as lab:
            client = await lab.acp()
            session = await client.new_session()
            store.stall()
            id_ = await client.ask_prompt(session, "late")
            if stop == "/stop":
                await client.prompt(session, "/stop")
            else:
                await client.notify(stop, {"requestId": id_})
                await client.call("_gateway-trio/status")
            lab.gateway.drain("shutdown", grace_seconds=2)
            await trio.sleep(3)
            assert lab.gateway.phase is Phase.CANCELLING
            store.go()
            assert await client.answer(id_) == {"stopReason": "cancelled"}
            assert await close_code(client) == 1012
    assert list(outcomes(lab.gateway).values()) == [["queued", "cancelled"]]


async def test_a_prompt_that_is_still_being_stored_keeps_the_drain_waiting(autojump_clock):
    """It was admitted before the drain; whether it is accepted is not known yet."""
    agent, store = ScriptedAgent(), FailingStore()
    with trio.fail_after(LIMIT):
        async with opened(agent=agent, store=store) as lab:
            client = await lab.acp()
            session = await client.new_session()
            store.stall()
            id_ = await client.ask_prompt(session, "slow")
            await trio.testing.wait_all_tasks_blocked()
            lab.gateway.drain("shutdown")
            await trio.sleep(1)
            assert lab.gateway.phase is Phase.DRAINING
            store.go()
            assert (await error_of(client, id_)).reason == "interrupted"
            assert now() == about(1)
    assert list(outcomes(lab.gateway).values()) == [["queued", "interrupted"]]


# --- cancelling from outside ----------------------------------------------------------------------------


class Embedded:
    """`serve` in a scope of the test's own; `raised` is how it ended."""

    def __init__(self, **more):
        self.listener = MemoryListener()
        self.scope = trio.CancelScope()
        self.raised: BaseException | None = None
        self.returned = trio.Event()
        self._serve = partial(serve, listeners=[self.listener], **more)

    @property
    def was_cancelled(self) -> bool:
        """Whether it raised Cancelled and nothing else."""
        group = BaseExceptionGroup("", [self.raised or ValueError("it returned")])
        return group.split(trio.Cancelled)[1] is None

    async def __call__(self, task_status=trio.TASK_STATUS_IGNORED):
        try:
            with self.scope:
                try:
                    await self._serve(task_status=task_status)
                except BaseException as error:
                    self.raised = error
                    raise
        finally:
            self.returned.set()


async def test_cancelling_the_scope_is_a_drain_with_no_grace(autojump_clock):
    agent = ScriptedAgent({"long": ["part", 100]})
    embedded = Embedded(agent=agent)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as clients:
            gateway = await clients.start(embedded)
            lab = Lab(gateway, embedded.listener, clients)
            client, session, first = await begin(lab, "long")
            second = await client.ask_prompt(session, "second")
            chat = await lab.chat()
            await client.until(
                lambda f: ours_of(f).get("turn", {}).get("position") == 0 and ours_of(f)["turn"]["seq"] > 1
            )
            start = now()
            embedded.scope.cancel()
            for id_ in (first, second):
                assert (await error_of(client, id_)).reason == "interrupted"
            assert await close_code(client) == await chat.close_code() == 1012
            await embedded.returned.wait()
            assert now() == start
            clients.cancel_scope.cancel()
    assert embedded.was_cancelled
    assert gateway.report.reason == "shutdown"
    assert gateway.report.asked_by == "cancelled"
    assert gateway.report.turns_interrupted == gateway.report.turns_queued == 1
    assert gateway.closed.is_set()
    assert sorted(map(tuple, outcomes(gateway).values())) == [
        ("queued", "interrupted"),
        ("queued", "running", "interrupted"),
    ]


@pytest.mark.parametrize("before", [None, "operator", "restart"])
async def test_cancelling_makes_haste_with_a_drain_that_is_under_way(before, autojump_clock):
    agent = ScriptedAgent({"long": ["part", 100]})
    embedded = Embedded(agent=agent)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as clients:
            gateway = await clients.start(embedded)
            client, _, id_ = await begin(Lab(gateway, embedded.listener, clients), "long")
            if before is not None:
                gateway.drain(before)
                await trio.sleep(3)
            start = now()
            embedded.scope.cancel()
            gateway.undrain()
            assert (await error_of(client, id_)).reason == "interrupted"
            await embedded.returned.wait()
            assert now() == start
            clients.cancel_scope.cancel()
    assert embedded.was_cancelled


async def test_cancelling_with_an_agent_that_ignores_it_still_records_and_says_goodbye(autojump_clock):
    agent = ScriptedAgent({"stuck": ["part", STUCK]})
    embedded = Embedded(agent=agent)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as clients:
            gateway = await clients.start(embedded)
            client, _, id_ = await begin(Lab(gateway, embedded.listener, clients), "stuck")
            start = now()
            embedded.scope.cancel()
            assert (await error_of(client, id_)).reason == "interrupted"
            assert await close_code(client) == 1012
            await gateway.closed.wait()
            assert now() - start == about(5)
            assert not embedded.returned.is_set(), "no task can be left behind"
            assert gateway.report.turns_abandoned == (agent.turns[0].id,)
            agent.release()
            await embedded.returned.wait()
            clients.cancel_scope.cancel()


@pytest.mark.parametrize("seconds", [float("nan"), -1])
async def test_a_grace_that_is_no_time_is_refused(seconds, autojump_clock):
    async with open_gateway() as lab:
        with pytest.raises(ValueError, match="grace_seconds"):
            lab.gateway.drain("shutdown", grace_seconds=seconds)
        assert lab.gateway.phase is Phase.OPEN


@pytest.mark.parametrize("hangs", ["open", "unfinished"])
async def test_cancelling_while_the_store_opens_gives_that_up(hangs, autojump_clock):
    class Hanging(MemoryStore):
        closed = False

        async def aclose(self):
            self.closed = True

    store = Hanging()
    setattr(store, hangs, trio.sleep_forever)
    embedded = Embedded(store=store)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(embedded)
            await trio.sleep(1)
            embedded.scope.cancel()
            await embedded.returned.wait()
    assert now() == 1
    assert embedded.was_cancelled
    assert store.closed == (hangs != "open"), "what is open is closed"
    with pytest.raises(trio.ClosedResourceError, match="the listener is closed"):
        await embedded.listener.accept()


# --- promise 1, at random -------------------------------------------------------------------------------

SEEDS = 600
GRACE, CLEANUP, CLOSE, BUDGET = 4.0, 2.0, 1.0, 14.0
OUTCOMES = {"completed", "cancelled", "interrupted", "failed"}
FORWARD = ["starting", "open", "draining", "cancelling", "finishing", "closing", "closed"]
RANDOM_CONFIG = Config(
    session=SessionConfig(queue_limit=3),
    exec=ExecConfig(term_seconds=1),
    drain=DrainConfig(
        grace_seconds=GRACE,
        cleanup_seconds=CLEANUP,
        exec_seconds=3,
        close_seconds=CLOSE,
        stop_budget_seconds=BUDGET,
    ),
)


SCRIPTS = {
    "now": ["x"],
    "soon": ["x", 0.5, "y"],
    "later": ["x", 3, "y"],
    "long": ["x", 20, "y"],
    "fails": ["x", 1, AgentError("no")],
    "stuck": ["x", STUCK],
}


class LateStore(MemoryStore):
    """Each commit takes one of a few times."""

    def __init__(self, rnd: random.Random, delays: tuple[float, ...]) -> None:
        super().__init__()
        self._rnd, self._delays = rnd, delays

    async def commit(self, changes):
        await trio.sleep(self._rnd.choice(self._delays))
        await super().commit(changes)


class Schedule:
    """One gateway in memory, and clients and an operator who do what the seed says, when it says."""

    def __init__(self, seed: int) -> None:
        self.rnd = random.Random(seed)
        self.slow_store = self.rnd.random() < 0.4
        self.agent = ScriptedAgent({text: [self._began, *steps] for text, steps in SCRIPTS.items()})
        self.began: list[float] = []
        self.early: list[str] = []
        self.phases: list[tuple[float, str]] = []
        self.answers: list[dict] = []  # to prompts
        self.stayed: list[int | None] = []  # close codes of those who stayed to the end
        self.embedded = Embedded(
            config=RANDOM_CONFIG,
            agent=self.agent,
            store=LateStore(self.rnd, (0, 0.5, 1.5, 3) if self.slow_store else (0,)),
        )
        self.final_at = float("inf")

    async def _began(self, turn, emit) -> None:
        self.began.append(now())

    def _announced(self) -> None:
        phase = self.gateway.phase
        self.phases.append((now(), phase.value))
        if phase is Phase.FINISHING:
            open_ = [id_ for id_, states in outcomes(self.gateway).items() if states[-1] not in OUTCOMES]
            coordinator = self.gateway.coordinator
            if open_ or coordinator.turns or coordinator.storing:
                self.early.append(f"finishing before {open_} had an outcome")

    async def pause(self) -> None:
        await trio.sleep(self.rnd.choice((0, 0, 0, 0.5, 1, 2)))

    async def run(self) -> Schedule:
        async with trio.open_nursery() as nursery:
            self.gateway = await nursery.start(self.embedded)
            self.phases.append((now(), "open"))
            self.gateway.coordinator.on(Action.ANNOUNCE, self._announced)
            async with trio.open_nursery() as clients:
                for _ in range(self.rnd.randrange(1, 4)):
                    clients.start_soon(self.client)
                nursery.start_soon(self.operator)
                await self.gateway.closed.wait()
                self.closed_at = now()
                self.phases.append((now(), self.gateway.phase.value))
            self.agent.release()
            await self.embedded.returned.wait()
            nursery.cancel_scope.cancel()
        return self

    async def client(self) -> None:
        await self.pause()
        try:
            async with trio.open_nursery() as own:
                client = None
                with trio.move_on_after(10):  # trio-websocket waits for ever if nobody answers the handshake
                    client = await Lab(self.gateway, self.embedded.listener, own).acp()
                if client is None:
                    raise EOFError
                await self.talk(client)
                own.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio_websocket.HandshakeError, EOFError):
            assert self.gateway.coordinator.going_down, "it came when the doors were shut"

    async def talk(self, client) -> None:
        leaves = self.rnd.random() < 0.3
        try:
            session = await client.new_session()
            for _ in range(self.rnd.randrange(1, 8)):
                await self.act(client, session)
                await self.pause()
            if leaves:
                await client.websocket.aclose()
        except (EOFError, trio_websocket.ConnectionClosed):
            pass
        with pytest.raises(EOFError):
            await client.until(lambda _: False)
        if client.closed.code != 1000:
            self.stayed.append(client.closed.code)
        self.answers += [f for f in client.frames if "method" not in f and f["id"] > 2]

    async def act(self, client, session: str) -> None:
        what = self.rnd.random()
        if what < 0.7:
            text = self.rnd.choice(list(SCRIPTS))
            await client.ask_prompt(
                session, text, onBusy=self.rnd.choice(("queue", "queue", "interrupt", "refuse"))
            )
        elif what < 0.8:
            await client.ask_prompt(session, "/stop")
        elif what < 0.9:
            await client.notify("session/cancel", {"sessionId": session})
        else:
            await client.notify("$/cancel_request", {"requestId": self.rnd.randrange(3, 9)})

    def drain(self, reason: str, **more) -> None:
        if reason in ("restart", "shutdown"):
            self.final_at = min(self.final_at, now())
        self.gateway.drain(reason, **more)

    async def operator(self) -> None:
        gateway = self.gateway
        for _ in range(self.rnd.randrange(5)):
            await self.pause()
            if self.rnd.random() < 0.5:
                self.drain(self.rnd.choice(("operator", "backend", "restart")))
            else:
                for reason in ("operator", "backend"):
                    gateway.undrain(reason)
                if gateway.phase is Phase.OPEN:
                    self.final_at = float("inf")
        await self.pause()
        if self.rnd.random() < 0.3:
            self.final_at = min(self.final_at, now())
            self.embedded.scope.cancel()
        else:
            self.drain(self.rnd.choice(("shutdown", "restart")), grace_seconds=self.rnd.choice((0, 1, None)))
        if self.rnd.random() < 0.2:
            await self.pause()
            gateway.coordinator.hurry(by="a second signal")

    def faults(self) -> list[str]:
        """Return what is not as promised."""
        bad = list(self.early)
        for id_, states in outcomes(self.gateway).items():
            ends = [state for state in states if state in OUTCOMES]
            if (
                len(ends) != 1
                or states[0] != "queued"
                or states[-1] not in OUTCOMES
                or states.count("running") > 1
            ):
                bad.append(f"turn {id_}: {states}")
        for (_, before), (_, after) in zip(self.phases, self.phases[1:], strict=False):
            if FORWARD.index(after) < FORWARD.index(before) and (before, after) != ("draining", "open"):
                bad.append(f"from {before} to {after}")
        for when in [] if self.slow_store else self.began:
            if not any(phase == "open" and start <= when <= end for start, end, phase in self.spans()):
                bad.append(f"a turn began at {when}, phases {self.phases}")
        if any(code != 1012 for code in self.stayed):
            bad.append(f"closed with {self.stayed}")
        for answer in self.answers:
            data = answer.get("error", {}).get("data", {})
            if data.get("reason") in ("draining", "busy") and data["admitted"]:
                bad.append(f"refused and admitted: {answer}")
        longest = GRACE + CLEANUP + CLOSE if not self.slow_store else GRACE + 3 * CLEANUP + CLOSE
        if self.closed_at > self.final_at + longest + 0.01:
            bad.append(f"closed at {self.closed_at}, asked at {self.final_at}")
        report = self.gateway.report
        if report.cut or self.phases[-1][1] != "closed":
            bad.append(f"{report}")
        return bad

    def spans(self):
        ends = [when for when, _ in self.phases[1:]] + [now()]
        return [(start, end, phase) for (start, phase), end in zip(self.phases, ends, strict=True)]


def run_schedule(seed: int) -> tuple[list[str], Schedule]:
    schedule = Schedule(seed)

    async def main():
        trio._core._run._r.seed(seed)  # pytest-trio made Trio's order one that a seed repeats
        with trio.fail_after(LIMIT):
            await schedule.run()
        return schedule.faults()

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)), schedule


def test_any_schedule_gives_each_accepted_prompt_one_outcome():
    wrong, seen, reopened, abandoned, refused = {}, set(), 0, 0, 0
    for seed in range(SEEDS):
        faults, schedule = run_schedule(seed)
        if faults:
            wrong[seed] = faults
        seen |= {tuple(states) for states in outcomes(schedule.gateway).values()}
        reopened += sum(phase == "open" for _, phase in schedule.phases) > 1
        abandoned += bool(schedule.gateway.report.turns_abandoned)
        refused += any("error" in f and f["error"]["data"]["reason"] == "draining" for f in schedule.answers)
    assert not wrong
    # The schedules were such that something could have gone wrong.
    ways = {("queued", outcome) for outcome in ("cancelled", "interrupted")} | {
        ("queued", "running", o) for o in OUTCOMES
    }
    assert seen >= ways
    assert min(reopened, abandoned, refused) > SEEDS // 20
