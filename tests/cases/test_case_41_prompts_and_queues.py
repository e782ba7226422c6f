"""Cases 41, 42, 43, 45, 49: prompts that come together, a turn that hangs, a full queue, a long life.

41 to 45 once against a real process, and in memory where an order or a time is to be exact.
"""

from __future__ import annotations

import sys
import tracemalloc
from pathlib import Path

import pytest
import trio
import trio.testing

from gateway_trio import Config
from gateway_trio.config import SessionConfig
from gateway_trio.core.commands import ExecCommand
from gateway_trio.core.events import Change, Prompt
from gateway_trio.testing import STUCK, AcpError, FailingStore, ScriptedAgent, open_gateway
from harness import Program, Refused

STUBBORN = Path(__file__).parent / "programs" / "stubborn.py"
CONFIG = """
[drain]
grace_seconds = 1
cleanup_seconds = 1
exec_seconds = 1
close_seconds = 1
[session]
queue_limit = 4
[quick_commands.hello]
type = "exec"
command = "echo world"
"""
PATIENCE = 60


def accepted(gateway) -> list[str]:
    return [e.body.text for s in gateway.sessions for e in s.log if isinstance(e.body, Prompt)]


def outcomes(gateway) -> list[str]:
    return [e.body.state for s in gateway.sessions for e in s.log if isinstance(e.body, Change) and e.body.ends]


# --- 41 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("road", ["chat", "acp", "two sockets"])
def test_case_41_five_prompts_without_waiting_are_five_turns_in_order(road, tmp_path):
    words = ["one", "two", "three", "four", "five"]
    with Program(tmp_path, CONFIG) as program, program.chat() as chat, program.acp() as acp:
        if road == "acp":
            session = acp.new_session()
            ids = [acp.ask_prompt(session, word) for word in words]
            assert [acp.answer(id_) for id_ in ids] == [{"stopReason": "end_turn"}] * 5
            assert acp.text() == "onetwothreefourfive"
            answers = [f["id"] for f in acp.frames if f.get("id") in ids]
            assert answers == ids
        elif road == "chat":
            for word in words:
                chat.send(word)
            said = [text for text in chat.until("five") if not text.startswith("· ")]
            assert said == words
        else:
            with program.chat() as other:
                other.ask("/whoami")
                for word in words:
                    chat.send(word)
                assert [text for text in other.until("five") if not text.startswith("· ")] == words
            chat.until("five")
        history = chat.ask("/history") if road != "acp" else None
        if history:
            assert history.splitlines() == [line for word in words for line in (f"you: {word}", f"agent: {word}")]


@pytest.mark.parametrize("busy", ["queue", "interrupt", "refuse"])
async def test_case_41_five_prompts_under_each_busy_policy(busy, autojump_clock):
    agent = ScriptedAgent({word: [word, 5] for word in "abcde"})
    config = Config(session=SessionConfig(busy=busy))
    with trio.fail_after(PATIENCE):
        async with open_gateway(config, agent=agent) as lab:
            client = await lab.acp()
            session = await client.new_session()
            ids = [await client.ask_prompt(session, word) for word in "abcde"]
            got = []
            for id_ in ids:
                try:
                    got.append((await client.answer(id_))["stopReason"])
                except AcpError as error:
                    got.append(error.reason)
    if busy == "queue":
        assert got == ["end_turn"] * 5
        assert [turn.text for turn in agent.turns] == list("abcde")
    elif busy == "refuse":
        assert got == ["end_turn", "busy", "busy", "busy", "busy"]
        assert accepted(lab.gateway) == ["a"]
    else:
        # Nothing is merged or dropped: each has its outcome, and the newest goes first.
        assert len(outcomes(lab.gateway)) == 5
        assert accepted(lab.gateway) == list("abcde")
        assert "e" in [turn.text for turn in agent.turns]
        assert set(got) == {"cancelled", "end_turn"}
        assert got[4] == "end_turn"


# --- 42 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", ["/stop", "session/cancel"])
@pytest.mark.parametrize("turn", ["long", "slow to stop", "stuck", "queue behind it"])
async def test_case_42_stop_and_at_once_a_prompt_is_answered(turn, stop, autojump_clock):
    async def slow(turn, emit):
        try:
            await trio.sleep(1000)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)

    agent = ScriptedAgent({"long": [500], "slow to stop": [slow], "stuck": [STUCK], "queue behind it": [500]})
    with trio.fail_after(PATIENCE):
        async with open_gateway(agent=agent) as lab:
            client = await lab.acp()
            session = await client.new_session()
            first = await client.ask_prompt(session, turn)
            behind = (
                [await client.ask_prompt(session, f"b{n}") for n in range(3)] if turn == "queue behind it" else []
            )
            await client.until_state("running")
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            if stop == "/stop":
                await client.ask_prompt(session, "/stop")
            else:
                await client.notify("session/cancel", {"sessionId": session})
            again = await client.ask_prompt(session, "again")
            assert await client.answer(first) == {"stopReason": "cancelled"}
            assert await client.answer(again) == {"stopReason": "end_turn"}
            assert trio.current_time() - start == pytest.approx(
                {"slow to stop": 3, "stuck": 5}.get(turn, 0), abs=1e-6
            )
            for id_ in behind:
                wanted = "cancelled" if stop == "/stop" else "end_turn"
                assert await client.answer(id_) == {"stopReason": wanted}
            agent.release()


@pytest.mark.parametrize("stop", ["/stop", "session/cancel", "$/cancel_request"])
async def test_case_42_stop_finds_a_prompt_that_is_still_being_stored(stop, autojump_clock):
    agent, store = ScriptedAgent({"hang": [1000]}), FailingStore()
    with trio.fail_after(PATIENCE):
        async with open_gateway(agent=agent, store=store) as lab:
            client = await lab.acp()
            session = await client.new_session()
            store.stall()
            first = await client.ask_prompt(session, "hang")
            if stop == "/stop":
                second = await client.ask_prompt(session, "second")
                await client.prompt(session, "/stop")
                store.go()
                assert await client.answer(second) == {"stopReason": "cancelled"}
            else:
                params = {"sessionId": session} if stop == "session/cancel" else {"requestId": first}
                await client.notify(stop, params)
                await client.call("_gateway-trio/status")
                store.go()
            assert await client.answer(first) == {"stopReason": "cancelled"}
            assert await client.prompt(session, "again") == {"stopReason": "end_turn"}
    assert [turn.text for turn in agent.turns] == ["again"]


def test_case_42_stop_and_a_prompt_in_a_real_process(tmp_path):
    with Program(tmp_path, CONFIG, script=STUBBORN) as program, program.chat() as chat:
        for n in range(5):
            chat.send("hang")
            chat.send("/stop")
            chat.send(f"prompt {n}")
            chat.until(f"prompt {n}")


# --- 43 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["hang", "shield", "thread"])
def test_case_43_everything_else_answers_while_the_model_hangs(what, tmp_path):
    with Program(tmp_path, CONFIG, script=STUBBORN) as program, program.chat() as chat, program.acp() as acp:
        session = acp.new_session()
        turn = acp.ask_prompt(session, what)
        acp.until_state("running")
        for _ in range(3):
            assert (acp.prompt(session, "/hello"))["_meta"]["gateway-trio"]["exitCode"] == 0
            assert acp.prompt(session, "/status") == {"stopReason": "end_turn"}
            assert chat.ask("/hello") == "world\n"
            assert chat.ask("hello") == "hello", "other sessions do not notice"
            assert acp.call("_gateway-trio/status")["turns"] == 1
        assert not any(f.get("id") == turn for f in acp.frames)
        assert acp.prompt(session, "/stop") == {"stopReason": "end_turn"}
        assert acp.answer(turn) == {"stopReason": "cancelled"}
        assert acp.prompt(session, "next") == {"stopReason": "end_turn"}
        assert program.get("/livez")[0] == 200


async def test_case_43_a_hundred_models_that_hang(autojump_clock):
    """Control, and the next prompt, answer in the same moment."""
    agent = ScriptedAgent({"hang": ["x", hang]})
    with trio.fail_after(PATIENCE):
        async with open_gateway(agent=agent) as lab:
            client = await lab.acp()
            sessions = [await client.new_session() for _ in range(100)]
            for session in sessions:
                await client.ask_prompt(session, "hang")
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            assert lab.gateway.status()["turns"] == 100
            for session in sessions:
                assert await client.prompt(session, "/status") == {"stopReason": "end_turn"}
                assert await client.prompt(session, "/stop") == {"stopReason": "end_turn"}
                assert await client.prompt(session, "next") == {"stopReason": "end_turn"}
            assert trio.current_time() == start


async def hang(turn, emit):
    await trio.sleep(300)


# --- 45 -------------------------------------------------------------------------------------------------


def test_case_45_a_full_queue_says_busy_and_accepts_nothing(tmp_path):
    with (
        Program(tmp_path, CONFIG, script=STUBBORN) as program,
        program.chat("other") as chat,
        program.acp() as acp,
    ):
        session = acp.new_session()
        acp.ask_prompt(session, "hang")
        chat.send("hang")
        acp.until_state("running")
        for n in range(4):
            acp.ask_prompt(session, f"waits {n}")
            chat.send(f"waits {n}")
            chat.until(f"· queued, {n} before it")
        for ours in ({}, {"onBusy": "interrupt"}, {"key": "k"}):
            with pytest.raises(Refused) as refused:
                acp.prompt(session, "one too many", **ours)
            assert (refused.value.code, refused.value.reason, refused.value.data["admitted"]) == (
                -32011,
                "busy",
                False,
            )
            assert refused.value.data["retryable"]
        assert chat.ask("one too many") == "the queue is full; send it again when there is room"
        # It was accepted by nobody: it is in no log, and the key is free.
        acp.call("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
        assert "one too many" not in acp.text("user_message_chunk")
        assert acp.prompt(session, "/hello")["_meta"]["gateway-trio"]["exitCode"] == 0, "execs wait in no queue"
        acp.prompt(session, "/stop")
        assert acp.prompt(session, "another", key="k") == {"stopReason": "end_turn"}


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_case_45_at_every_limit(limit, autojump_clock):
    agent = ScriptedAgent({"long": [50]})
    with trio.fail_after(PATIENCE * 10):
        async with open_gateway(Config(session=SessionConfig(queue_limit=limit)), agent=agent) as lab:
            client = await lab.acp()
            session = await client.new_session()
            for _ in range(3):
                ids = [await client.ask_prompt(session, "long")]
                ids += [await client.ask_prompt(session, f"{n}") for n in range(limit + 2)]
                got = []
                for id_ in ids:
                    try:
                        got.append((await client.answer(id_))["stopReason"])
                    except AcpError as error:
                        got.append(error.reason)
                assert got == ["end_turn"] * (limit + 1) + ["busy"] * 2
    assert accepted(lab.gateway) == ["long", *(f"{n}" for n in range(limit))] * 3
    assert len(agent.turns) == 3 * (limit + 1)


# --- 49 -------------------------------------------------------------------------------------------------


class Quick:
    """An agent that answers at once, and notes how deep the stack was."""

    def __init__(self):
        self.count = 0
        self.depths: set[int] = set()

    async def run(self, turn, emit):
        self.count += 1
        depth, frame = 0, sys._getframe()
        while frame is not None:
            depth, frame = depth + 1, frame.f_back
        self.depths.add(depth)


async def test_case_49_a_queue_that_is_filled_and_drained_for_long_does_not_grow(autojump_clock):
    agent = Quick()
    config = Config(session=SessionConfig(queue_limit=32, keep_bytes=20_000))
    with trio.fail_after(PATIENCE):
        async with open_gateway(config, agent=agent) as lab:
            client = await lab.acp()
            session = await client.new_session()

            async def fill(times: int) -> int:
                for n in range(times):
                    ids = [await client.ask_prompt(session, "x" * 50, key=f"{agent.count}-{k}") for k in range(32)]
                    if n % 4 == 3:
                        ids.append(await client.ask_prompt(session, "/stop"))
                    for id_ in ids:
                        await client.answer(id_)
                    client.frames.clear()
                    client._waiting.clear()
                await trio.testing.wait_all_tasks_blocked()
                return tracemalloc.get_traced_memory()[0]

            tracemalloc.start()
            try:
                before = await fill(20)
                after = await fill(40)
            finally:
                tracemalloc.stop()
            gateway = lab.gateway
            log = next(iter(gateway.sessions)).log
            assert gateway.status()["turns"] == 0
            assert log.last - log.trimmed < 200
            assert gateway.turns._live == {}
            # 1,280 further prompts of some 10 KiB, had each left something.
            assert after - before < 1_000_000
    assert agent.count > 1000
    assert len(agent.depths) <= 2, "no turn is started from within another"


async def test_case_43_and_45_an_exec_beside_a_full_queue():
    """In memory and in real time, with a real exec."""
    agent = ScriptedAgent({"hang": [hang]})
    hello = ExecCommand("hello", command="echo world")
    config = Config(session=SessionConfig(queue_limit=1), quick_commands={"hello": hello})
    with trio.fail_after(PATIENCE):
        async with open_gateway(config, agent=agent) as lab:
            client = await lab.acp()
            session = await client.new_session()
            for prompt in ("hang", "waits"):
                await client.ask_prompt(session, prompt)
            with pytest.raises(AcpError):
                await client.prompt(session, "one too many")
            assert (await client.prompt(session, "/hello"))["_meta"]["gateway-trio"]["exitCode"] == 0
            assert lab.gateway.status()["turns"] == 1
