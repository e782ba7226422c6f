"""What the model is told of a session, and what `/retry` runs, where the log in memory has little of it left."""

import itertools

import pytest
import trio

from gateway_trio.config import parse_config
from gateway_trio.core.events import Change, Kind, Message, Prompt
from gateway_trio.memory_store import MemoryStore
from gateway_trio.sqlite_store import SqliteStore
from gateway_trio.store import AddEvent, AddSession, SetText
from gateway_trio.testing import KeptStore, ScriptedAgent, open_gateway

CONFIG = parse_config(
    '[session]\nkeep_bytes = 4000\n[quick_commands.big]\ntype = "exec"\ncommand = "seq 1 1000"\n', environ={}
)
LIMIT = 60


def told(agent):
    """What the last turn was given as its history."""
    return [(item.text, item.interrupted) for item in agent.turns[-1].history]


async def check(lab, agent, session):
    """The history has everything, and the last prompt is run again."""
    client = await lab.acp()
    await client.call("session/resume", {"sessionId": session, "cwd": "/"})
    await client.prompt(session, "/history")
    assert "my name is Ann" in client.text()
    assert (await client.prompt(session, "/retry"))["stopReason"] == "end_turn"
    assert (agent.turns[-1].text, told(agent)) == ("and then", [("my name is Ann", False), ("hello Ann", False)])
    await client.prompt(session, "next")
    assert [text for text, _ in told(agent)] == ["my name is Ann", "hello Ann", "and then", "and then"]


async def talked(lab):
    """Return a session in which two things were asked before much output of quick commands."""
    client = await lab.acp()
    session = await client.new_session()
    for text in ("my name is Ann", "and then", *["/big"] * 5):
        await client.prompt(session, text)
    log = lab.gateway.sessions.find(session).log
    assert not any(isinstance(entry.body, Prompt) and entry.body.lane == "turn" for entry in log)
    return session


def agent():
    return ScriptedAgent({"my name is Ann": ["hello Ann"]})


@pytest.mark.parametrize("make", [lambda _: MemoryStore(), lambda _: KeptStore(), SqliteStore])
async def test_the_output_of_quick_commands_pushes_nothing_out_of_the_history(make, tmp_path):
    with trio.fail_after(LIMIT):
        async with open_gateway(CONFIG, agent=(asked := agent()), store=make(tmp_path / "x.db")) as lab:
            await check(lab, asked, await talked(lab))


@pytest.mark.parametrize("kept", [True, False])
async def test_nor_over_a_restart(kept, tmp_path):
    store = KeptStore() if kept else None
    with trio.fail_after(LIMIT):
        async with open_gateway(CONFIG, agent=agent(), store=store or SqliteStore(tmp_path / "x.db")) as lab:
            session = await talked(lab)
        async with open_gateway(
            CONFIG, agent=(asked := agent()), store=store or SqliteStore(tmp_path / "x.db")
        ) as lab:
            await check(lab, asked, session)


class Counting(KeptStore):
    """Counts what is read of the conversation."""

    def __init__(self):
        super().__init__()
        self.read = []

    async def conversation(self, session_id, *, before, keep_bytes):
        rows = await super().conversation(session_id, before=before, keep_bytes=keep_bytes)
        self.read.append(len(rows))
        return rows


async def fill(store, works):
    """Store the session `s`, of works: a prompt, whether it is a turn, the texts that came of it, its outcome."""
    numbers = itertools.count(1)
    changes = [AddSession("s", "local")]
    for owner, (prompt, lane, texts, outcome) in enumerate(works):
        kind = Kind.ANSWER if lane == "turn" else Kind.OUTPUT
        bodies = [Prompt(prompt, lane), Change(lane, f"w{owner}", "running", 1, ends=False)]
        bodies += [Message(kind)] * len(texts)
        bodies.append(Change(lane, f"w{owner}", outcome, 1, ends=True))
        left = iter(texts)
        for body, number in zip(bodies, numbers, strict=False):
            changes.append(AddEvent("s", number, f"w{owner}", body))
            if isinstance(body, Message):
                changes.append(SetText("s", number, next(left)))
        numbers = itertools.count(number + 1)
    await store.commit(changes)


async def opened(store, text, config=CONFIG):
    """Send a prompt to the stored session; return the agent that got it."""
    async with open_gateway(config, agent=(asked := agent()), store=store) as lab:
        client = await lab.acp()
        await client.call("session/resume", {"sessionId": "s", "cwd": "/"})
        await client.prompt("s", text)
    return asked


async def test_no_more_is_read_back_than_the_history_takes(autojump_clock):
    config = parse_config("[session]\nkeep_bytes = 500000\n", environ={})
    store, output = Counting(), ("/x", "exec", ["x" * 600_000], "completed")
    with trio.fail_after(LIMIT):
        await fill(store, [*((f"ask {i}", "turn", ["said"], "completed") for i in range(2000)), output])
        asked = await opened(store, "next", config)
        assert [text for text, _ in told(asked)][-2:] == ["ask 1999", "said"]
        rows = 2 * len(told(asked))  # of a turn four, of which two are told
        assert rows <= sum(store.read) < rows + 2 * 65536 / 300
        assert 500_000 / 700 < len(told(asked)) / 2 < 500_000 / 600
        assert len(store.read) > 5, "page by page, so that nobody is held up"


async def test_what_the_newest_events_have_is_not_read_twice(autojump_clock):
    store = Counting()
    with trio.fail_after(LIMIT):
        await fill(store, [(f"ask {i}", "turn", ["said"], "completed") for i in range(1000)])
        asked = await opened(store, "next", parse_config("[session]\nkeep_bytes = 200000\n", environ={}))
        turns, newest = len(told(asked)) / 2, 200_000 / 1210
        assert 200_000 / 700 < turns < 200_000 / 600
        assert sum(store.read) < 4 * (turns - newest) + 65536 / 300


async def test_a_turn_that_was_cut_off_has_its_mark_and_a_new_conversation_begins_with_nothing():
    output = ("/x", "exec", ["x" * 5000], "completed")
    with trio.fail_after(LIMIT):
        store = KeptStore()
        await fill(
            store, [("first", "turn", ["one"], "completed"), ("slow", "turn", ["half"], "interrupted"), output]
        )
        asked = await opened(store.left(), "next")
        assert told(asked) == [("first", False), ("one", False), ("slow", False), ("half", True)]
        for text in ("/new", "/big", "/big"):
            await opened(store, text)
        assert told(await opened(store.left(), "next")) == []
        again = (await opened(store, "/retry")).turns[-1]
        assert (again.text, list(again.history)) == ("slow", [])


async def test_what_retry_runs_is_found_before_an_answer_that_is_longer_than_the_history(autojump_clock):
    with trio.fail_after(LIMIT):
        store = KeptStore()
        await fill(
            store, [("first", "turn", [], "completed"), ("tell all", "turn", ["x" * 3000] * 50, "completed")]
        )
        asked = await opened(store, "/retry")
        assert asked.turns[-1].text == "tell all"


async def test_a_history_begins_where_the_store_does(autojump_clock):
    """As where the oldest events were dropped by age: an answer without its prompt is not told."""
    store = KeptStore()
    with trio.fail_after(LIMIT):
        await fill(store, [("old", "turn", ["gone"], "completed"), ("new", "turn", ["there"], "completed")])
        for number in (1, 2):
            del store._sessions["s"].events[number]
        assert told(await opened(store, "next")) == [("new", False), ("there", False)]
