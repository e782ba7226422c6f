"""The stock Python ACP SDK, unchanged, against a real gateway; and every frame that it got against `acp.schema`."""

import asyncio
import contextlib
import json
from pathlib import Path

import acp
import pytest
from acp.ws.client import create_websocket_stream

from harness import Program
from schema import Checker

CONFIG = """
[agent]
words_per_second = 40

[quick_commands.hello]
type = "exec"
command = 'printf "hello %s" "$1"'
args = "text"
"""

PATIENCE = 60


class Client:
    """An SDK client that keeps the updates. It asks for nothing and grants nothing."""

    def __init__(self):
        self.updates = []
        self._news = asyncio.Event()

    async def session_update(self, session_id, update, **more):
        assert more == {}  # our `_meta` must not become keyword arguments
        self.updates.append((session_id, update))
        self._news.set()

    async def until(self, holds):
        while not holds():
            self._news.clear()
            await self._news.wait()

    def text(self, kind="agent_message_chunk"):
        """What was said, by message."""
        said = {}
        for _, update in self.updates:
            if update.session_update == kind:
                said[update.message_id] = said.get(update.message_id, "") + update.content.text
        return list(said.values())

    def commands(self):
        return [
            c.name
            for _, u in self.updates
            if u.session_update == "available_commands_update"
            for c in u.available_commands
        ]


class Checked:
    """A transport that holds every frame that comes against the schema."""

    def __init__(self, inner):
        self._inner = inner
        self._checker = Checker()
        self.count = 0
        self.methods = []  # of all that came

    async def send(self, message):
        self._checker.sent(json.dumps(message))
        await self._inner.send(message)

    async def receive(self):
        frame = await self._inner.receive()
        if frame is not None:
            self._checker.check(json.dumps(frame))
            self.count += 1
            self.methods.append(frame.get("method"))
        return frame

    async def close(self):
        await self._inner.close()


@contextlib.asynccontextmanager
async def connected(program, headers=None, client=None):
    client = client or Client()
    transport = Checked(await create_websocket_stream(f"ws://127.0.0.1:{program.port}/acp", headers=headers))
    client.transport = transport
    agent = acp.connect_to_agent(client, transport)
    try:
        yield client, agent
        assert transport.count > 0
    finally:
        await agent.close()


def run(main):
    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def prompt(agent, session, text, **more):
    return agent.prompt(session_id=session, prompt=[acp.text_block(text)], **more)


@pytest.fixture
def program(tmp_path):
    with Program(tmp_path, CONFIG) as program:
        yield program


def test_the_sdk_from_initialize_to_a_refusal_while_draining(program):
    async def main():
        async with connected(program) as (client, agent):
            about = await agent.initialize(protocol_version=acp.PROTOCOL_VERSION)
            assert about.protocol_version == acp.PROTOCOL_VERSION
            assert about.agent_capabilities.load_session is True
            assert about.agent_info.name == "gateway-trio"
            session = (await agent.new_session(cwd="/", mcp_servers=[])).session_id
            await client.until(client.commands)
            assert {"hello", "status", "stop"} <= set(client.commands())

            # A streamed prompt.
            words = " ".join(f"w{number}" for number in range(20))
            answer = await prompt(agent, session, words)
            assert answer.stop_reason == "end_turn"
            assert client.text() == [words]
            chunks = [u for _, u in client.updates if u.session_update == "agent_message_chunk"]
            assert len(chunks) > 3

            # An exec while another prompt runs, and a cancel of that one.
            long = asyncio.create_task(prompt(agent, session, "long " * 2000))
            await client.until(lambda: client.text()[-1].startswith("long long"))
            answer = await prompt(agent, session, "/hello you")
            assert answer.stop_reason == "end_turn"
            assert answer.field_meta["gateway-trio"]["exitCode"] == 0
            assert "hello you" in client.text()
            assert not long.done()
            await agent.cancel(session_id=session)
            assert (await long).stop_reason == "cancelled"

            # Commands of the gateway's own, a failure, an unknown one.
            await prompt(agent, session, "/whoami")
            assert "local, role admin" in client.text()[-1]
            with pytest.raises(acp.RequestError) as refusal:
                await prompt(agent, session, "/whoami now")
            assert (refusal.value.code, refusal.value.data["reason"]) == (-32602, "usage")
            with pytest.raises(acp.RequestError) as refusal:
                await prompt(agent, "nobody's", "hi")
            assert refusal.value.code == -32002

            # While draining: refused, and an exec runs.
            await prompt(agent, session, "/drain a test")
            with pytest.raises(acp.RequestError) as refusal:
                await prompt(agent, session, "one more")
            assert refusal.value.code == -32010
            assert refusal.value.data["admitted"] is False
            assert refusal.value.data["reasons"] == ["operator"]
            assert (await prompt(agent, session, "/hello there")).stop_reason == "end_turn"
            assert client.text()[-1] == "hello there"
            await prompt(agent, session, "/undrain")
            assert (await prompt(agent, session, "open again")).stop_reason == "end_turn"

    run(main)


def test_the_sdk_finds_loads_resumes_and_closes_sessions(program):
    async def main():
        async with connected(program) as (_, agent):
            await agent.initialize(protocol_version=acp.PROTOCOL_VERSION)
            session = (await agent.new_session(cwd="/", mcp_servers=[])).session_id
            await prompt(agent, session, "one two three")
        async with connected(program) as (client, agent):
            await agent.initialize(protocol_version=acp.PROTOCOL_VERSION)
            listed = (await agent.list_sessions()).sessions
            assert [s.session_id for s in listed] == [session]
            await agent.load_session(cwd="/", session_id=session, mcp_servers=[])
            await client.until(client.commands)
            assert client.text() == ["one two three"]
            assert client.text("user_message_chunk") == ["one two three"]
            assert (await agent.resume_session(cwd="/", session_id=session)) is not None
            await prompt(agent, session, "four")
            assert client.text()[-1] == "four"
            await agent.close_session(session_id=session)
            with pytest.raises(acp.RequestError):
                await prompt(agent, session, "five")

    run(main)


def test_the_sdk_as_the_gateway_goes_down(program):
    async def main():
        async with connected(program) as (client, agent):
            await agent.initialize(protocol_version=acp.PROTOCOL_VERSION)
            session = (await agent.new_session(cwd="/", mcp_servers=[])).session_id
            words = " ".join(["w"] * 120)  # three seconds
            long = asyncio.create_task(prompt(agent, session, words))
            await client.until(lambda: client.text() and client.text()[0].startswith("w w"))
            program.signal()
            with pytest.raises(acp.RequestError) as refusal:
                while True:
                    await prompt(agent, session, "/hello you")
                    await prompt(agent, session, "hello")
            assert refusal.value.code == -32010
            assert refusal.value.data["reasons"] == ["shutdown"]
            assert (await long).stop_reason == "end_turn"
            assert client.text()[0] == words

    run(main)
    assert program.wait() == 0
    report = program.report
    assert (report["turns_finished"], report["turns_interrupted"]) == (1, 0)


def test_the_sdk_authenticates_by_header_and_by_method(tmp_path):
    token = "a-token-of-the-sdk-0123456789"
    auth = '[[auth.tokens]]\nname = "ann"\nrole = "user"\nenv = "SDK_TOKEN"\n'

    async def who(client, agent):
        session = (await agent.new_session(cwd="/", mcp_servers=[])).session_id
        await prompt(agent, session, "/whoami")
        return client.text()[-1]

    async def main(program):
        async with connected(program, {"Authorization": f"Bearer {token}"}) as (client, agent):
            assert (await agent.initialize(protocol_version=acp.PROTOCOL_VERSION)).auth_methods == []
            assert (await who(client, agent)).startswith("ann, role user")
        async with connected(program) as (client, agent):
            offered = (await agent.initialize(protocol_version=acp.PROTOCOL_VERSION)).auth_methods
            (method,) = [getattr(one, "root", one).id for one in offered]
            with pytest.raises(acp.RequestError) as refusal:
                await agent.new_session(cwd="/", mcp_servers=[])
            assert (refusal.value.code, refusal.value.data["reason"]) == (-32000, "auth_required")
            with pytest.raises(acp.RequestError) as refusal:
                await agent.authenticate(method_id=method)
            assert refusal.value.code == -32000
            await agent.authenticate(method_id=method, **{"gateway-trio": {"token": token}})
            assert (await who(client, agent)).startswith("ann, role user")

    with Program(tmp_path, auth, env={"SDK_TOKEN": token}) as program:
        run(lambda: main(program))


class Answering(Client):
    """Answers each permission request with what `choose` returns for it; an option's id, or None to say `cancelled`."""

    def __init__(self, choose):
        super().__init__()
        self.asked = []
        self._choose = choose

    async def request_permission(self, session_id, tool_call, options, **more):
        assert more == {}
        self.asked.append((session_id, tool_call.title, [option.option_id for option in options]))
        self._news.set()
        choice = await self._choose()
        outcome = {"outcome": "cancelled"} if choice is None else {"outcome": "selected", "optionId": choice}
        return acp.RequestPermissionResponse.model_validate({"outcome": outcome})


def test_the_sdk_answers_a_permission_request_and_a_slower_one_is_told(tmp_path):
    """The slower client's SDK is sent `$/cancel_request`, which it may not know; it goes on all the same."""
    slow_may_answer = asyncio.Event()

    async def at_once():
        return "once"

    async def late():
        await slow_may_answer.wait()
        return "no"

    async def main(program):
        async with (
            connected(program, client=Answering(late)) as (slow, slow_agent),
            connected(program, client=Answering(at_once)) as (quick, quick_agent),
        ):
            await slow_agent.initialize(protocol_version=acp.PROTOCOL_VERSION)
            await quick_agent.initialize(protocol_version=acp.PROTOCOL_VERSION)
            session = (await slow_agent.new_session(cwd="/", mcp_servers=[])).session_id
            running = asyncio.create_task(prompt(slow_agent, session, "delete x"))
            await slow.until(lambda: slow.asked)
            assert slow.asked == [(session, "delete x", ["once", "always", "no"])]
            await quick_agent.load_session(cwd="/", session_id=session, mcp_servers=[])
            assert (await running).stop_reason == "end_turn"
            assert quick.asked == slow.asked
            slow_may_answer.set()
            await prompt(slow_agent, session, "/whoami")
            assert slow.text()[0] == "Done: delete x"
            assert "$/cancel_request" in slow.transport.methods
            assert "$/cancel_request" not in quick.transport.methods

    script = Path(__file__).parent / "cases" / "programs" / "asking.py"
    with Program(tmp_path, script=script) as program:
        run(lambda: main(program))


@pytest.mark.parametrize("choice", [None, "fails"])
def test_an_sdk_client_that_cannot_answer_leaves_it_to_others(tmp_path, choice):
    async def cannot():
        if choice == "fails":
            raise acp.RequestError.internal_error()
        return choice

    async def main(program):
        async with connected(program, client=Answering(cannot)) as (client, agent):
            await agent.initialize(protocol_version=acp.PROTOCOL_VERSION)
            session = (await agent.new_session(cwd="/", mcp_servers=[])).session_id
            running = asyncio.create_task(prompt(agent, session, "delete x"))
            await client.until(lambda: client.asked)
            await prompt(agent, session, "/deny")
            assert (await running).stop_reason == "end_turn"
            assert "Not done: denied." in client.text()

    script = Path(__file__).parent / "cases" / "programs" / "asking.py"
    with Program(tmp_path, script=script) as program:
        run(lambda: main(program))
