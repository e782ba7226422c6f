"""What the chat does at a terminal, with a terminal of ours and a gateway in memory."""

import pytest
import trio
import trio.testing

from doors import Door
from gateway_trio.chat.talk import Talk
from gateway_trio.chat.terminal import Interrupt, Line
from gateway_trio.client import Closed
from gateway_trio.core.jsonrpc import Request
from gateway_trio.testing import ScriptedAgent


class Screen:
    """A terminal whose lines are kept."""

    def __init__(self):
        self.lines = []
        self.growing = ""
        self._type, self.events = trio.open_memory_channel(10)
        self._news = trio.Event()

    async def run(self, *, task_status):
        task_status.started()
        await trio.sleep_forever()

    async def show(self, lines, growing):
        await trio.lowlevel.checkpoint()
        self.lines += lines
        self.growing = growing
        self._news.set()
        self._news = trio.Event()

    def do(self, event):
        self._type.send_nowait(Line(event) if isinstance(event, str) else event)

    async def until(self, part):
        """Wait for a line that holds `part`, and take it and those before it away."""
        while not any(part in line for line in self.lines):
            await self._news.wait()
        place = next(i for i, line in enumerate(self.lines) if part in line)
        taken, self.lines = self.lines[: place + 1], self.lines[place + 1 :]
        return taken

    def leave(self):
        self._type.close()


@pytest.fixture
async def door(nursery):
    with trio.fail_after(3000):
        yield Door(nursery)


class Chat:
    """A talk in the background."""

    def __init__(self, client, session):
        self.screen = Screen()
        self.session = session
        self.over = None
        self.ended = trio.Event()
        self._talk = Talk(client, session, client.new_session)

    async def run(self):
        try:
            await self._talk.run(self.screen)
        except Closed as over:
            self.over = over
        self.ended.set()


async def begin(client, nursery):
    chat = Chat(client, await client.new_session())
    nursery.start_soon(chat.run)
    await chat.screen.until("connected")
    return chat


def ask(client, chat, kinds=("allow_once", "reject_once")):
    options = [{"optionId": kind[0], "name": kind.title(), "kind": kind} for kind in kinds]
    params = {
        "sessionId": chat.session.id,
        "toolCall": {"toolCallId": "1", "title": "Delete it"},
        "options": options,
    }
    client._board.incoming(Request("p1", "session/request_permission", params))


@pytest.mark.parametrize(("word", "named"), [("/allow", "Allow_Once"), ("/DENY ", "Reject_Once")])
async def test_a_permission_is_asked_for_and_given_or_not(autojump_clock, door, nursery, word, named):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            chat = await begin(client, nursery)
            ask(client, chat)
            (line,) = await chat.screen.until("Delete it?")
            assert "/allow or /deny (Allow_Once, Reject_Once)" in line
            chat.screen.do(word)
            await chat.screen.until(f"answered: {named}")
            assert chat.session.permissions() == []
            chat.screen.leave()
            await chat.ended.wait()


async def test_an_answer_that_there_is_not(autojump_clock, door, nursery):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            chat = await begin(client, nursery)
            ask(client, chat, ["allow_once"])
            await chat.screen.until("Delete it?")
            chat.screen.do("/deny")
            await chat.screen.until("no such answer")
            assert len(chat.session.permissions()) == 1
            chat.screen.leave()
            await chat.ended.wait()


async def test_a_lost_connection_is_two_lines(autojump_clock, door, nursery):
    with trio.fail_after(120):
        await door.serve(agent=ScriptedAgent({"long": ["one ", 30.0, "two"]}))
        async with door.connect() as client:
            chat = await begin(client, nursery)
            chat.screen.do("long")
            while chat.screen.growing != "one ":
                await chat.screen._news.wait()
            door.close_connections("slow")
            lines = await chat.screen.until("one two")
            assert lines == ["· connection lost, coming back …", "· back", "one two"]
            chat.screen.leave()
            await chat.ended.wait()


async def test_ctrl_c_stops_then_leaves(autojump_clock, door, nursery):
    with trio.fail_after(120):
        await door.serve(agent=ScriptedAgent({"long": ["one ", 300.0]}))
        async with door.connect() as client:
            chat = await begin(client, nursery)
            chat.screen.do("long")
            while chat.screen.growing != "one ":
                await chat.screen._news.wait()
            chat.screen.do(Interrupt())
            await chat.screen.until("stopping")
            await chat.screen.until("cancelled")
            await trio.sleep(10)
            assert not chat.ended.is_set()
            chat.screen.do(Interrupt())
            await chat.ended.wait()
            assert chat.over is None


async def test_somebody_elses_turn_is_shown_and_can_be_stopped(autojump_clock, door, nursery):
    with trio.fail_after(120):
        await door.serve(agent=ScriptedAgent({"long": ["one ", 300.0]}))
        async with door.connect() as client, door.connect() as other:
            chat = await begin(client, nursery)
            theirs = (await other.resume(chat.session.id)).prompt("long")
            await chat.screen.until("> long")
            chat.screen.do(Interrupt())
            await chat.screen.until("stopping")
            assert (await theirs.result()).state == "cancelled"
            chat.screen.leave()
            await chat.ended.wait()


async def test_when_it_is_over_that_is_raised(autojump_clock, door, nursery):
    with trio.fail_after(120):
        await door.serve()
        async with door.connect() as client:
            chat = await begin(client, nursery)
            door.close_connections("revoked")
            await chat.ended.wait()
            assert chat.over.code == 4501
