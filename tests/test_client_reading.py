"""Reading a session with the client library: all of it, each event once, however slow the reader. In virtual time."""

import pytest
import trio
import trio.testing

from doors import Door
from gateway_trio.agents import ToolCall
from gateway_trio.client import Closed, Gap, Lost, Refused, Text, connect
from gateway_trio.client.reading import MOST_CHARS, MOST_UPDATES
from gateway_trio.core.archive import Archive
from gateway_trio.testing import ScriptedAgent

MANY = 3 * MOST_UPDATES
AGENT = {
    "many": [ToolCall(f"c{n}", f"look {n}", "read") for n in range(MANY)],
    "big": ["x" * 200_000 for _ in range(3 * MOST_CHARS // 200_000)],
    "long": ["part", 600.0, " and the rest"],
}


@pytest.fixture
async def door(nursery):
    with trio.fail_after(3000):
        door = Door(nursery)
        await door.serve(agent=ScriptedAgent(AGENT))
        yield door


async def session_of(door, *texts):
    """Make a session with these prompts; return its id."""
    async with door.connect() as client:
        session = await client.new_session()
        for text in texts:
            assert (await session.prompt(text).result()).state == "completed"
        return session.id


async def records(reading):
    """Return all that is read, as `sessions export` writes it."""
    archive = Archive()
    found = [record async for update in reading for record in archive.take(update)]
    return found + archive.end()


async def test_everything_comes_once_and_in_order(autojump_clock, door):
    id_ = await session_of(door, "one", "many", "two")
    async with door.connect() as client:
        with client.read(id_) as reading:
            found = await records(reading)
        assert [record["seq"] for record in found] == list(range(1, reading.last + 1))
        assert sum(record["kind"] == "tool" for record in found) == MANY
        assert [record["text"] for record in found if record["kind"] == "prompt"] == ["one", "many", "two"]
        assert [record["text"] for record in found if record["kind"] == "answer"] == ["one", "two"]
        assert reading.epoch == door.gateway.sessions.find(id_).epoch


@pytest.mark.parametrize("text", ["many", "big"])
async def test_a_slow_reader_holds_up_the_connection_and_loses_nothing(autojump_clock, door, text):
    """The gateway closes it meanwhile, as it takes no byte: it comes back and goes on."""
    id_ = await session_of(door, text, "end")
    async with door.connect() as client:
        with client.read(id_) as reading:
            archive = Archive()
            found = archive.take(await anext(reading))
            await trio.sleep(300)
            assert len(reading._waiting) <= MOST_UPDATES
            assert reading._chars <= MOST_CHARS + 16 * 1024
            async for update in reading:
                found += archive.take(update)
        found += archive.end()
        assert [record["seq"] for record in found] == list(range(1, reading.last + 1))
        said = "".join(record["text"] for record in found if record["kind"] == "answer")
        assert said == "".join(part for part in AGENT[text] if isinstance(part, str)) + "end"
        assert (await client.status())["phase"] == "open", "the connection is of use again"


async def test_a_connection_that_is_cut_again_and_again(autojump_clock, door):
    id_ = await session_of(door, "one", "many", "two")
    streams = []

    async def open_stream():
        streams.append(await door.open())
        return streams[-1]

    async with connect("ws://localhost", open_stream=open_stream) as client:
        cuts = 0
        with client.read(id_) as reading:
            archive, found = Archive(), []
            async for update in reading:
                found += archive.take(update)
                if len(found) > 600 * (cuts + 1):
                    cuts += 1
                    await trio.aclose_forcefully(streams[-1])
            found += archive.end()
        assert cuts >= 4
        assert len(streams) >= 3
        assert [record["seq"] for record in found] == list(range(1, reading.last + 1))


async def test_what_still_runs_is_read_as_far_as_it_is(autojump_clock, door):
    async with door.connect() as client, door.connect() as other:
        session = await client.new_session()
        prompt = session.prompt("long")
        async for update in prompt:
            if isinstance(update, Text):
                break
        with other.read(session.id) as reading:
            found = await records(reading)
        assert found[-1] == {
            "seq": reading.last, "kind": "answer", "owner": prompt.work_id, "text": "part", "open": True,
        }  # fmt: skip


async def test_what_is_not_kept_is_told(autojump_clock, nursery):
    with trio.fail_after(600):
        door = Door(nursery)
        await door.serve("[session]\nkeep_bytes = 65536\n", agent=ScriptedAgent(AGENT))
        id_ = await session_of(door, "many", "end")
        async with door.connect() as client:
            with client.read(id_) as reading:
                first = await anext(reading)
                assert isinstance(first, Gap)
                assert (first.start, first.upto > 1) == (1, True)
                rest = await records(reading)
            assert [record["seq"] for record in rest] == list(range(first.upto + 1, reading.last + 1))


async def test_a_session_that_there_is_not(autojump_clock, door):
    async with door.connect() as client:
        with client.read("s-none") as reading:
            with pytest.raises(Refused) as caught:
                await anext(reading)
            assert caught.value.reason == "unknown_session"
        session = await client.new_session()
        with pytest.raises(ValueError, match="already"), client.read(session.id):
            pass


async def test_a_connection_that_does_not_come_back_ends_it(autojump_clock, door):
    id_ = await session_of(door, "many")
    async with connect("ws://localhost", open_stream=door.open, come_back_seconds=0) as client:
        with client.read(id_) as reading:
            await anext(reading)
            door.close_connections("internal")
            with pytest.raises(Lost) as caught:
                await records(reading)
            assert isinstance(caught.value, Closed)
            with pytest.raises(Lost):
                await anext(reading)


async def test_leaving_in_the_middle_lets_the_connection_go_on(autojump_clock, door):
    id_ = await session_of(door, "many")
    async with door.connect() as client:
        with client.read(id_) as reading:
            await anext(reading)
            await trio.testing.wait_all_tasks_blocked()
            assert len(reading._waiting) >= MOST_UPDATES - 1, "it waits"
        with trio.fail_after(10):
            assert (await client.status())["phase"] == "open"
        with client.read(id_) as again:
            assert len(await records(again)) == again.last
