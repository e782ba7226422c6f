"""`/chat`, in memory: what a person sees, line by line. Virtual time; real time where a quick command runs."""

import contextlib

import pytest
import trio
import trio.testing

from gateway_trio.agents import AgentError, BackendUnavailable, Plan, ThoughtDelta, ToolCall, ToolUpdate, Usage
from gateway_trio.config import AliasCommand, Config, ExecCommand, ExecConfig, SessionConfig
from gateway_trio.testing import FailingStore, ScriptedAgent, open_gateway


@contextlib.asynccontextmanager
async def gateway(config=None, **more):
    with trio.fail_after(60):
        async with open_gateway(config, **more) as lab:
            yield lab


def commands(*made, **more):
    return Config(quick_commands={command.name: command for command in made}, **more)


async def ask(chat, text):
    await chat.send(text)
    return await chat.receive()


async def nothing_comes(chat):
    """Assert that the next frame is the answer to what is asked now: nothing came before it."""
    assert "role admin" in await ask(chat, "/whoami")


# --- prompts and their answers ------------------------------------------------------------------


async def test_an_answer_is_one_whole_message(autojump_clock):
    script = ["hel", 1.0, "lo", 1.0, " you"]
    async with gateway(agent=ScriptedAgent({"hi": script})) as lab:
        chat = await lab.chat()
        began = trio.current_time()
        assert await ask(chat, "hi") == "hello you"
        assert trio.current_time() - began == pytest.approx(2)
        await nothing_comes(chat)


async def test_what_is_shown_of_a_turn(autojump_clock):
    script = [
        "before",
        ThoughtDelta("not shown"),
        ToolCall("c1", "reads a file"),
        ToolUpdate("c1", "completed"),
        Plan(({"content": "not shown", "priority": "high", "status": "pending"},)),
        Usage(1, 2),
        "after",
    ]
    async with gateway(agent=ScriptedAgent({"go": script})) as lab:
        chat = await lab.chat()
        assert await ask(chat, "go") == "before"
        assert await chat.receive() == "· reads a file"
        assert await chat.receive() == "after"
        await nothing_comes(chat)


@pytest.mark.parametrize("character", ["x", "é", "𝄞"])
async def test_a_long_message_comes_in_frames_under_256_kib(autojump_clock, character):
    long = character * 400_000
    async with gateway(agent=ScriptedAgent({"go": [long]})) as lab:
        chat = await lab.chat()
        await chat.send("go")
        got = []
        while sum(map(len, got)) < len(long):
            got.append(await chat.receive())
        assert "".join(got) == long
        assert max(len(frame.encode()) for frame in got) < 256 * 1024
        await nothing_comes(chat)


async def test_an_empty_frame_is_no_prompt(autojump_clock):
    agent = ScriptedAgent()
    async with gateway(agent=agent) as lab:
        chat = await lab.chat()
        for text in ("", " ", "\n\t"):
            await chat.send(text)
        await chat.websocket.send_message(b"bytes")
        await nothing_comes(chat)
        assert agent.turns == []


async def test_an_answer_of_nothing_is_no_frame(autojump_clock):
    async with gateway(agent=ScriptedAgent({"go": []})) as lab:
        chat = await lab.chat()
        await chat.send("go")
        await trio.sleep(1)
        assert await ask(chat, "next") == "next"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (AgentError("no such city"), "no such city"),
        (BackendUnavailable("the model is down"), "the model is down"),
        (KeyError("secret"), "the log"),
        (AgentError("no \ud83d such"), "no \ufffd such"),
        (BackendUnavailable("down \ud83d"), "down \ufffd"),
    ],
)
async def test_a_failure_is_a_notice(autojump_clock, fault, says):
    async with gateway(agent=ScriptedAgent({"where is it": ["part", fault]})) as lab:
        chat = await lab.chat()
        assert await ask(chat, "where is it") == "part"
        notice = await chat.receive()
        assert notice.startswith("· failed (where is it)")
        assert says in notice
        assert "secret" not in notice
        assert await ask(chat, "hi") == "hi"


async def test_a_prompt_that_cannot_be_stored_is_refused_in_words(autojump_clock):
    store = FailingStore()
    async with gateway(store=store) as lab:
        chat = await lab.chat()
        assert await ask(chat, "hi") == "hi"
        store.failing = True
        assert "could not be stored" in await ask(chat, "again")
        other = await lab.chat("another")
        assert "no session" in await other.receive()
        assert await other.close_code() == 1011


# --- sessions ---------------------------------------------------------------------------------------


async def test_each_name_is_a_session_and_main_is_the_one_without(autojump_clock):
    async with gateway() as lab:
        plain = lab.websocket
        from gateway_trio.testing import ChatClient

        unnamed, main, other = ChatClient(await plain("/chat")), await lab.chat("main"), await lab.chat("other")
        assert (await ask(unnamed, "/whoami")).endswith("session main")
        assert (await ask(other, "/whoami")).endswith("session other")
        assert await ask(unnamed, "hello") == "hello"
        # Both that have it see the answer; the third does not.
        assert await main.receive() == "hello"
        assert await ask(other, "/history") == "Nothing was said yet."
        await nothing_comes(other)
        assert await ask(main, "/history") == "you: hello\nagent: hello"
        assert lab.gateway.status()["sessions"] == 2


async def test_it_starts_at_the_end_of_what_was_said(autojump_clock):
    agent = ScriptedAgent({"long": ["one ", 5.0, "two"]})
    async with gateway(agent=agent) as lab:
        first = await lab.chat()
        assert await ask(first, "hi") == "hi"
        await first.send("long")
        await trio.sleep(1)
        second = await lab.chat()
        await nothing_comes(second)
        # But what is being said is given whole.
        assert await first.receive() == await second.receive() == "one two"


async def test_history_counts_and_marks(autojump_clock):
    agent = ScriptedAgent({"cut": ["half", 30.0]})
    async with gateway(agent=agent) as lab:
        chat = await lab.chat()
        for number in range(8):
            await ask(chat, f"p{number}")
        await chat.send("cut")
        await trio.sleep(1)
        await chat.send("/stop")
        await chat.until("· cancelled")
        assert await ask(chat, "/history 2") == "you: cut\nagent: half [interrupted]"
        assert len((await ask(chat, "/history")).splitlines()) == 10
        assert (await ask(chat, "/history 100")).splitlines()[0] == "you: p0"
        assert "Usage" in await ask(chat, "/history x")


async def test_new_begins_an_empty_history(autojump_clock):
    agent = ScriptedAgent({"long": [30.0, "done"]})
    async with gateway(agent=agent) as lab:
        chat = await lab.chat()
        await ask(chat, "one")
        assert await ask(chat, "/new") == "A new conversation."
        assert await ask(chat, "/history") == "Nothing was said yet."
        await ask(chat, "two")
        assert not agent.turns[-1].history
        await chat.send("long")
        await trio.sleep(1)
        assert "/stop" in await ask(chat, "/new")  # not in mid-turn
        assert await chat.receive() == "done"
        await ask(chat, "three")
        assert [item.text for item in agent.turns[-1].history] == ["two", "two", "long", "done"]


async def test_retry_runs_the_last_prompt_again_in_place_of_it(autojump_clock):
    answers = iter(["first", "second"])

    async def varies(turn, emit):
        from gateway_trio.agents import TextDelta

        await emit(TextDelta(next(answers)))

    agent = ScriptedAgent({"go": [varies], "long": [30.0, "done"]})
    async with gateway(agent=agent) as lab:
        chat = await lab.chat()
        assert "no prompt" in await ask(chat, "/retry")
        assert await ask(chat, "go") == "first"
        assert await ask(chat, "/retry") == "second"
        assert not agent.turns[-1].history
        assert await ask(chat, "/history") == "you: go\nagent: second"
        await chat.send("long")
        await trio.sleep(1)
        assert "/stop" in await ask(chat, "/retry")
        assert await chat.receive() == "done"


# --- in mid-turn ---------------------------------------------------------------------------------------


async def test_a_queued_prompt_is_told_its_place(autojump_clock):
    agent = ScriptedAgent({"long": ["a", 10.0, "b"]})
    async with gateway(agent=agent) as lab:
        chat = await lab.chat()
        await chat.send("long")
        await trio.sleep(1)
        assert (await ask(chat, "two")).startswith("· queued, 0 ")
        assert (await ask(chat, "three")).startswith("· queued, 1 ")
        assert [await chat.receive() for _ in range(3)] == ["ab", "two", "three"]


async def test_queue_and_interrupt_whatever_the_policy(autojump_clock):
    for busy in ("queue", "interrupt", "refuse"):
        agent = ScriptedAgent({"long": ["part", 10.0, " end"]})
        async with gateway(Config(session=SessionConfig(busy=busy)), agent=agent) as lab:
            chat = await lab.chat()
            await chat.send("long")
            await trio.sleep(1)
            assert (await ask(chat, "/queue two words")).startswith("· queued")
            assert await chat.receive() == "part end"
            assert await chat.receive() == "two words"
            await chat.send("long")
            await trio.sleep(1)
            await chat.send("/interrupt at once")
            frames = await chat.until("at once")
            frames += await chat.until("at once") if frames[-1].startswith("·") else []
            assert "part" in frames
            assert any(frame.startswith("· cancelled (long)") for frame in frames)
            assert frames[-1] == "at once"
            assert "Usage: /queue TEXT" in await ask(chat, "/queue")


async def test_refuse_and_a_full_queue_are_told_in_words(autojump_clock):
    agent = ScriptedAgent({"long": [10.0, "done"]})
    async with gateway(Config(session=SessionConfig(busy="refuse")), agent=agent) as lab:
        chat = await lab.chat()
        await chat.send("long")
        await trio.sleep(1)
        assert await ask(chat, "no") == "a turn is running"
    async with gateway(Config(session=SessionConfig(queue_limit=1)), agent=agent) as lab:
        chat = await lab.chat()
        await chat.send("long")
        await trio.sleep(1)
        assert (await ask(chat, "two")).startswith("· queued")
        assert "queue is full" in await ask(chat, "three")
        assert [await chat.receive(), await chat.receive()] == ["done", "two"]


async def test_stop_names_what_it_dropped(autojump_clock):
    agent = ScriptedAgent({"long": ["part", 30.0]})
    async with gateway(agent=agent) as lab:
        chat = await lab.chat()
        assert await ask(chat, "/stop") == "There is nothing to stop."
        await chat.send("long")
        await trio.sleep(1)
        for prompt in ("second", "third " * 100):
            assert (await ask(chat, prompt)).startswith("· queued")
        answer = await ask(chat, "/stop")
        lines = answer.splitlines()
        assert lines[0] == "Stopping the turn that runs."
        assert lines[1] == "Dropped: second"
        assert lines[2].startswith("Dropped: third third")
        assert len(lines) == 3
        assert len(lines[2]) < 250
        frames = [await chat.receive() for _ in range(4)]
        assert "part" in frames
        assert {frame.split(")")[0] for frame in frames if frame.startswith("·")} >= {
            "· cancelled (long",
            "· cancelled (second",
        }
        # Case 42: a prompt right behind it is answered.
        await chat.send("long")
        await trio.sleep(1)
        await chat.send("/stop")
        await chat.send("at once")
        await chat.until("at once")
        assert [turn.text for turn in agent.turns] == ["long", "long", "at once"]


# --- commands ------------------------------------------------------------------------------------------


async def test_unknown_commands_and_escapes(autojump_clock):
    agent = ScriptedAgent()
    async with gateway(agent=agent) as lab:
        chat = await lab.chat()
        answer = await ask(chat, "/histroy")
        assert "/histroy" in answer
        assert "/history" in answer
        for text in ("/", "/Ünïcode", "/nothing-like-it x", "/" + "x" * 5000):
            assert "There is no command" in await ask(chat, text)
        assert agent.turns == []
        assert await ask(chat, "//help me") == "/help me"
        assert await ask(chat, "/usr/bin/env is a path") == "/usr/bin/env is a path"
        assert await ask(chat, " /help") == " /help"


async def test_help_status_whoami(autojump_clock):
    config = commands(
        ExecCommand("gpu", command="true", description="GPU memory", args="words"),
        AliasCommand("h", target="/help"),
    )
    async with gateway(config) as lab:
        chat = await lab.chat()
        helped = await ask(chat, "/help")
        assert "/gpu [WORD …]" in helped
        assert "GPU memory" in helped
        assert "/kill ID" in helped
        assert "//text" in helped
        assert await ask(chat, "/commands") == await ask(chat, "/h") == await ask(chat, "/HELP") == helped
        assert "phase open, 0 turns, 0 execs" in await ask(chat, "/status")
        assert await ask(chat, "/whoami") == "local, role admin, session main"
        assert await ask(chat, "/ps") == "No exec runs."


SLEEP = ExecCommand("sleeper", command="echo begun; sleep 300")
QUICK = ExecCommand("quick", command="echo quick")


async def test_an_execs_answer_need_not_wait_for_a_turns():
    done = trio.Event()

    async def until_done(turn, emit):
        await done.wait()

    async with gateway(commands(QUICK), agent=ScriptedAgent({"long": ["one", until_done, " two"]})) as lab:
        chat = await lab.chat()
        await chat.send("long")
        for _ in range(3):
            assert await ask(chat, "/quick") == "quick\n"
        done.set()
        assert await chat.receive() == "one two"


async def test_ps_and_kill():
    async with gateway(commands(SLEEP, QUICK, exec=ExecConfig(max_running=1))) as lab:
        chat, other = await lab.chat(), await lab.chat("other")
        for command in ("/sleeper", "/quick", "/quick"):
            await chat.send(command)
        assert await chat.receive() == "· queued, 0 before it"
        assert await chat.receive() == "· queued, 1 before it"
        listed = (await ask(other, "/ps")).splitlines()
        assert [line.split()[1:3] for line in listed] == [["/sleeper", "running"], *[["/quick", "queued"]] * 2]
        assert "no exec nope" in await ask(other, "/kill nope")
        exec_id = listed[0].split()[0]
        assert await ask(other, f"/kill {exec_id}") == f"Killing {exec_id} (/sleeper)."
        killed = await chat.receive()
        assert "killed" in killed
        assert [await chat.receive(), await chat.receive()] == ["quick\n"] * 2
        assert await ask(other, "/ps") == "No exec runs."


async def test_the_first_exec_that_waits_is_told_so():
    async with gateway(commands(SLEEP, QUICK, exec=ExecConfig(max_running=1))) as lab:
        chat, other = await lab.chat(), await lab.chat("other")
        await chat.send("/sleeper")
        await chat.send("/quick")
        try:
            with trio.fail_after(60):
                assert await chat.receive() == "· queued, 0 before it"
        finally:
            exec_id = (await ask(other, "/ps")).split()[0]
            await ask(other, f"/kill {exec_id}")


async def test_refusals_of_commands_in_words():
    async with gateway(commands(QUICK, AliasCommand("q", target="/quick"))) as lab:
        chat = await lab.chat()
        assert "Usage: /quick" in await ask(chat, "/quick words")
        assert await ask(chat, "/q") == "quick\n"


# --- the drain --------------------------------------------------------------------------------------------


async def test_an_operators_drain_and_its_end():
    agent = ScriptedAgent()
    async with gateway(commands(QUICK, AliasCommand("q", target="/quick")), agent=agent) as lab:
        chat, other = await lab.chat(), await lab.chat("other")
        await nothing_comes(other)
        await chat.send("/drain moving house")
        assert (await chat.receive()).startswith("· draining (operator)")
        assert "until /undrain" in await chat.receive()
        assert (await other.receive()).startswith("· draining (operator)")
        for prompt in ("hello", "//quick"):
            assert "draining" in await ask(other, prompt)
        for command in ("/retry", "/new", "/queue x", "/interrupt x", "/q"):
            refusal = await ask(other, command)
            assert "draining" in refusal
            assert not refusal.startswith("·")
        assert "/quick" in await ask(other, "/q")
        assert await ask(other, "/quick") == "quick\n"
        status = await ask(other, "/status")
        assert "phase draining" in status
        assert "operator, asked for by local" in status
        assert "moving house" in status
        assert "There is no command" in await ask(other, "/nope")
        late = await lab.chat("late")
        assert (await late.receive()).startswith("· draining (operator)")
        assert "no drain" in await ask(other, "/undrain backend")
        await other.send("/undrain")
        assert await other.receive() == "· open again"
        assert await other.receive() == "Open again."
        assert await chat.receive() == "· open again"
        assert await ask(other, "hello") == "hello"
        assert [turn.text for turn in agent.turns] == ["hello"]


async def test_a_shutdown_as_a_person_sees_it(autojump_clock):
    agent = ScriptedAgent({"long": ["half", 100.0]})
    async with gateway(agent=agent) as lab:
        chat = await lab.chat()
        await chat.send("long")
        await trio.sleep(1)
        assert (await ask(chat, "next")).startswith("· queued")
        lab.gateway.drain("shutdown")
        notice = await chat.receive()
        assert notice.startswith("· draining (shutdown)")
        assert "20 s" in notice
        assert "draining" in await ask(chat, "another")
        frames = [await chat.receive() for _ in range(4)]
        assert "half" in frames
        assert any(frame.startswith("· interrupted (long)") for frame in frames)
        assert any(frame.startswith("· interrupted (next)") for frame in frames)
        assert frames[-1] == "· the gateway shuts down; come back"
        assert await chat.close_code() == 1012


async def test_a_restart_is_acknowledged(autojump_clock):
    async with gateway() as lab:
        chat = await lab.chat()
        await chat.send("/restart")
        frames = await chat.until("restarts", "memory")
        frames += await chat.until("· the gateway restarts; come back")
        assert any(frame.startswith("· draining (restart)") for frame in frames) or len(frames) >= 2
        assert await chat.close_code() == 1012
        await lab.gateway.closed.wait()
        assert lab.gateway.report.reason == "restart"
