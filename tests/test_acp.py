"""`/acp`, in memory: each method's answers and errors, keys, cancels, loading, closing, slow clients.

Every frame of every test is held against ACP's schema (`memory.acp_lab`). Where time matters it is virtual; where a
quick command runs, which is a real process, it is real.
"""

import json

import pytest
import trio
import trio.testing

from gateway_trio.agents import (
    AgentError,
    BackendRejected,
    BackendUnavailable,
    Plan,
    Stop,
    TextDelta,
    ThoughtDelta,
    ToolCall,
    ToolUpdate,
    Usage,
)
from gateway_trio.config import (
    AliasCommand,
    Config,
    DrainConfig,
    ExecCommand,
    ExecConfig,
    ServerConfig,
    SessionConfig,
)
from gateway_trio.testing import STUCK, AcpError, FailingStore, ScriptedAgent
from memory import SlowListener, acp_lab, follows_its_outcome, ours_of, refused, states


def text(words):
    return {"type": "text", "text": words}


def commands(*made, **more):
    return Config(quick_commands={command.name: command for command in made}, **more)


def chunks(client, kind="agent_message_chunk"):
    return [update["content"]["text"] for update in client.updates(kind)]


async def until_running(client, id_=None):
    """Wait until a turn, of this id if one is given, runs."""

    def is_it(frame):
        turn = ours_of(frame).get("turn") or {}
        return turn.get("state") == "running" and id_ in (None, turn["id"])

    return ours_of(await client.until(is_it))["turn"]["id"]


# --- the protocol itself ---------------------------------------------------------------------------


async def test_initialize_says_what_there_is_and_comes_first(autojump_clock):
    async with acp_lab() as lab:
        client = await lab.connect()
        for method in ("session/new", "session/prompt", "_gateway-trio/status", "no/such", "authenticate"):
            error = await refused(client, method, {"cwd": "/"})
            assert (error.code, error.reason) == (-32600, "not_initialized")
        await client.notify("session/cancel", {"sessionId": "s"})  # never answered
        result = await client.initialize()
        assert result["protocolVersion"] == 1
        assert result["agentCapabilities"]["loadSession"] is True
        assert result["authMethods"] == []
        assert [f for f in client.frames if f.get("id") is None and "method" not in f] == []
        again = await refused(client, "initialize", {"protocolVersion": 1})
        assert (again.code, again.reason) == (-32600, "invalid_request")
        assert (await client.call("_gateway-trio/status"))["phase"] == "open"


async def test_another_protocol_version_is_answered_with_ours(autojump_clock):
    async with acp_lab() as lab:
        client = await lab.connect()
        result = await client.call("initialize", {"protocolVersion": 7, "somethingNew": [1]})
        assert result["protocolVersion"] == 1


@pytest.mark.parametrize(
    ("method", "params", "names"),
    [
        ("session/new", {"mcpServers": []}, "params.cwd"),
        ("session/new", {"cwd": 3}, "params.cwd"),
        ("session/new", ["/"], "params"),
        ("session/load", {"cwd": "/"}, "params.sessionId"),
        ("session/load", {"cwd": "/", "sessionId": None}, "params.sessionId"),
        ("session/resume", {"sessionId": "x"}, "params.cwd"),
        ("session/list", {"cursor": 3}, "params.cursor"),
        ("session/list", {"cursor": "x"}, "cursor"),
        ("session/list", {"cursor": "9" * 30}, "cursor"),
        ("session/list", {"cursor": "9" * 5000}, "cursor"),
        ("session/close", {}, "params.sessionId"),
        ("session/prompt", {"sessionId": "x", "prompt": "hi"}, "params.prompt"),
        ("session/prompt", {"sessionId": "x", "prompt": ["hi"]}, "params.prompt"),
        ("session/prompt", {"prompt": []}, "params.sessionId"),
        ("authenticate", {}, "params.methodId"),
        ("_gateway-trio/exec", {"name": "a", "args": [1]}, "params.args"),
        ("_gateway-trio/exec", {"name": "a", "args": "one two"}, "params.args"),
        ("_gateway-trio/kill", {"id": 3}, "params.id"),
        ("_gateway-trio/drain", {"why": 3}, "params.why"),
        ("_gateway-trio/undrain", {"reason": "weather"}, "params.reason"),
    ],
)
async def test_bad_params_are_named(autojump_clock, method, params, names):
    async with acp_lab() as lab:
        client = await lab.acp()
        error = await refused(client, method, params)
        assert (error.code, error.reason) == (-32602, "invalid_params")
        assert names in str(error)


async def test_what_acp_marks_as_defaulting_on_error_defaults(autojump_clock):
    async with acp_lab() as lab:
        client = await lab.connect()
        await client.call("initialize", {"protocolVersion": 1, "clientCapabilities": "none", "_meta": 3})
        session = (await client.call("session/new", {"cwd": "/", "mcpServers": [], "_meta": [], "more": 1}))[
            "sessionId"
        ]
        ask = {"sessionId": session, "prompt": [text("hi")], "_meta": {"gateway-trio": "no object"}}
        assert (await client.call("session/prompt", ask))["stopReason"] == "end_turn"


async def test_errors_of_the_protocol(autojump_clock):
    async with acp_lab() as lab:
        client = await lab.acp()
        error = await refused(client, "session/fork", {"sessionId": "x", "cwd": "/"})
        assert (error.code, error.reason) == (-32601, "method_not_found")
        error = await refused(client, "authenticate", {"methodId": "password"})
        assert (error.code, error.reason) == (-32602, "invalid_params")
        for method in ("session/load", "session/resume", "session/prompt", "session/close"):
            error = await refused(client, method, {"sessionId": "nobody's", "cwd": "/", "prompt": [text("hi")]})
            assert (error.code, error.reason) == (-32002, "unknown_session")
        for raw, code in (("{", -32700), ("[]", -32600), ('{"jsonrpc":"2.0","id":true,"method":"x"}', -32600)):
            await client.send(raw)
            error = await client.rejects(None)
            assert error["code"] == code
            client.frames = [f for f in client.frames if f.get("id", 0) is not None]
            client.checked = 0
        # Nothing of this is answered.
        await client.notify("no/such", {})
        await client.notify("session/cancel", {"sessionId": 3})
        await client.notify("$/cancel_request", {"requestId": {"a": 1}})
        await client.send({"jsonrpc": "2.0", "id": 99, "result": {}})
        await client.send(b"\x00\xff")
        before = len(client.frames)
        await client.call("_gateway-trio/status")
        assert len(client.frames) == before + 1


async def test_an_id_in_flight_is_not_taken_twice(autojump_clock):
    async with acp_lab(agent=ScriptedAgent({"long": [5.0, "done"]})) as lab:
        client = await lab.acp()
        session = await client.new_session()
        ask = {
            "jsonrpc": "2.0",
            "method": "session/prompt",
            "params": {"sessionId": session, "prompt": [text("long")]},
        }
        await client.send({**ask, "id": "same"})
        await until_running(client)
        await client.send({**ask, "id": "same"})
        error = await client.rejects("same")
        assert (error["code"], error["data"]["reason"]) == (-32600, "invalid_request")
        # The first one is still answered, and its id can be used again after that.
        await client.until(lambda f: f.get("id") == "same" and "result" in f)
        await client.send({"jsonrpc": "2.0", "id": "same", "method": "_gateway-trio/status"})
        await client.until(lambda f: f.get("id") == "same" and "phase" in f.get("result", {}))


async def test_ids_are_given_back_as_they_came(autojump_clock):
    async with acp_lab() as lab:
        client = await lab.acp()
        for id_ in (0, -7, "", "é", 2**53, None):
            await client.send({"jsonrpc": "2.0", "id": id_, "method": "_gateway-trio/status"})
            frame = await client.until(lambda f, id_=id_: "phase" in f.get("result", {}) and f["id"] == id_)
            assert type(frame["id"]) is type(id_)


async def test_tasks_that_ask_at_once_each_get_the_id_of_their_own_request(autojump_clock):
    """Of the client for tests: while one request is sent, another task may ask."""
    async with acp_lab(agent=ScriptedAgent({"max_tokens": [Stop("max_tokens")], "end_turn": ["all"]})) as lab:
        client = await lab.acp()
        sessions = {words: await client.new_session() for words in ("max_tokens", "end_turn")}
        told = {}

        async def ask(words):
            id_ = await client.ask_prompt(sessions[words], words)
            told[words] = (await client.answer(id_))["stopReason"]

        async with trio.open_nursery() as nursery:
            for words in sessions:
                nursery.start_soon(ask, words)
        assert told == {"max_tokens": "max_tokens", "end_turn": "end_turn"}


async def test_a_prompt_needs_a_session_that_this_connection_has(autojump_clock):
    async with acp_lab() as lab:
        first, second = await lab.acp(), await lab.acp()
        session = await first.new_session()
        for method in ("session/prompt", "session/close"):
            error = await refused(second, method, {"sessionId": session, "prompt": [text("hi")]})
            assert (error.code, error.reason) == (-32002, "unknown_session")
        await second.call("session/resume", {"sessionId": session, "cwd": "/"})
        assert (await second.prompt(session, "hi"))["stopReason"] == "end_turn"


async def test_only_who_speaks_ours_gets_our_notifications(autojump_clock):
    async with acp_lab() as lab:
        stock, ours = await lab.acp(ours=False), await lab.acp()
        assert ours.phases()[0]["phase"] == "open"
        await ours.call("_gateway-trio/drain", {"why": "a test"})
        await ours.until(lambda f: f.get("method") == "_gateway-trio/phase" and f["params"]["phase"] == "draining")
        lab.gateway.drain("restart", grace_seconds=0)
        await ours.until(lambda f: f.get("method") == "_gateway-trio/goodbye")
        await lab.gateway.closed.wait()
        assert await stock.code() == await ours.code() == 1012
        assert [f for f in stock.frames if f.get("method", "").startswith("_gateway-trio/")] == []
        goodbye = ours.frames[-1]["params"]
        assert goodbye["code"] == 1012
        assert 0 < goodbye["reconnectAfterMs"] < 60_000


# --- turns and their answers -------------------------------------------------------------------------


async def test_a_turn_from_queued_to_its_answer(autojump_clock):
    script = ["hel", 1.0, "lo", ThoughtDelta("hm"), ToolCall("c1", "looks"), ToolUpdate("c1", "completed"), "!"]
    script += [Plan(({"content": "a", "priority": "high", "status": "pending"},)), Usage(10, 100), 1.0]
    async with acp_lab(agent=ScriptedAgent({"go": script})) as lab:
        client = await lab.acp()
        session = await client.new_session()
        asked = await client.ask_prompt(session, "go", key="k")
        assert await client.answer(asked) == {"stopReason": "end_turn"}
        assert follows_its_outcome(client, asked) == "completed"
        assert states(client) == ["queued", "running", "completed"]
        changes = [ours_of(f)["turn"] for f in client.frames if "turn" in ours_of(f)]
        assert {c["key"] for c in changes} == {"k"}
        assert {c["seq"] for c in changes} == {1}
        assert changes[0]["position"] == 0
        assert client.text() == "hello!"
        assert client.text("agent_thought_chunk") == "hm"
        kinds = [
            f["params"]["update"]["sessionUpdate"] for f in client.frames if f.get("method") == "session/update"
        ]
        assert kinds[0] == "available_commands_update"
        assert kinds.index("tool_call") < kinds.index("tool_call_update") < kinds.index("plan")
        assert "usage_update" in kinds
        numbers = [ours_of(f)["seq"] for f in client.frames if "seq" in ours_of(f)]
        assert numbers == sorted(numbers)
        # Two messages, as the tool call closed the first.
        assert len({u["messageId"] for u in client.updates("agent_message_chunk")}) == 2


@pytest.mark.parametrize(
    ("fault", "code", "reason", "says"),
    [
        (AgentError("no such city"), -32603, "failed", "no such city"),
        (BackendRejected("bad key"), -32603, "failed", "bad key"),
        (BackendUnavailable("down"), -32016, "backend_unavailable", "down"),
        (ZeroDivisionError("a secret"), -32603, "internal", "log"),
        (ExceptionGroup("", [BackendUnavailable("down too")]), -32016, "backend_unavailable", "down too"),
    ],
)
async def test_a_failed_turn_says_why(autojump_clock, fault, code, reason, says):
    async with acp_lab(agent=ScriptedAgent({"go": ["part", fault]})) as lab:
        client = await lab.acp()
        session = await client.new_session()
        asked = await client.ask_prompt(session, "go")
        with pytest.raises(AcpError) as error:
            await client.answer(asked)
        assert (error.value.code, error.value.reason) == (code, reason)
        assert error.value.data["admitted"] is True
        assert says in str(error.value)
        assert "secret" not in json.dumps(client.frames)
        assert follows_its_outcome(client, asked) == "failed"
        assert client.text() == "part"
        assert (await client.prompt(session, "hi"))["stopReason"] == "end_turn"


async def test_a_turn_has_limits(autojump_clock):
    config = Config(session=SessionConfig(turn_idle_seconds=5, turn_seconds=12))
    agent = ScriptedAgent({"silent": [100.0], "long": ["a", 4.0, "b", 4.0, "c", 4.0, "d", 4.0, "e"]})
    async with acp_lab(config, agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        for prompt, reason in (("silent", "turn_idle"), ("long", "turn_too_long")):
            with pytest.raises(AcpError) as error:
                await client.prompt(session, prompt)
            assert (error.value.code, error.value.reason) == (-32603, reason)
            assert error.value.data["admitted"] is True
        assert agent.running == 0


async def test_an_interrupted_turn_is_said_to_be_admitted(autojump_clock):
    async with acp_lab(agent=ScriptedAgent({"long": ["part", 100.0]})) as lab:
        client = await lab.acp()
        session = await client.new_session()
        running, queued = [await client.ask_prompt(session, words) for words in ("long", "next")]
        await client.until(
            lambda f: ours_of(f).get("turn", {}).get("position") == 1 or states(client).count("queued") == 2
        )
        lab.gateway.drain("shutdown", grace_seconds=0)
        for id_ in (running, queued):
            with pytest.raises(AcpError) as error:
                await client.answer(id_)
            assert (error.value.code, error.value.reason) == (-32800, "interrupted")
            assert error.value.data["admitted"] is True
            assert follows_its_outcome(client, id_) == "interrupted"
        assert client.text() == "part"


async def test_a_prompt_that_cannot_be_stored_is_refused(autojump_clock):
    store, agent = FailingStore(), ScriptedAgent()
    async with acp_lab(agent=agent, store=store) as lab:
        client = await lab.acp()
        session = await client.new_session()
        store.failing = True
        with pytest.raises(AcpError) as error:
            await client.prompt(session, "hi", key="k")
        assert (error.value.code, error.value.reason) == (-32014, "store_unavailable")
        assert error.value.data["admitted"] is False
        assert (await refused(client, "session/new", {"cwd": "/"})).reason == "store_unavailable"
        assert agent.turns == []
        assert states(client) == []
        store.failing = False
        # Also the key was not used up.
        assert (await client.prompt(session, "hi", key="k"))["stopReason"] == "end_turn"


async def test_a_prompts_blocks(autojump_clock):
    agent = ScriptedAgent()
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()

        async def prompt(*blocks):
            return await client.call("session/prompt", {"sessionId": session, "prompt": list(blocks)})

        link = {"type": "resource_link", "uri": "file:///a.py", "name": "a.py"}
        embedded = {"type": "resource", "resource": {"uri": "file:///b.py", "text": "b = 1"}}
        assert (await prompt(text("look"), link, embedded))["stopReason"] == "end_turn"
        assert agent.turns[-1].text == "look\nfile:///a.py\nb = 1"
        assert agent.turns[-1].blocks == (text("look"), link, embedded)
        # A command is what the first block says, if that is a text.
        await prompt(text("see"), text("/status"))
        assert agent.turns[-1].text == "see\n/status"
        await prompt(link, text("/status"))
        assert agent.turns[-1].text == "file:///a.py\n/status"
        await prompt(text("//status"))
        assert agent.turns[-1].text == "/status"
        image = {"type": "image", "data": "aGk=", "mimeType": "image/png"}
        blob = {"type": "resource", "resource": {"uri": "file:///c", "blob": "aGk="}}
        audio = {"type": "audio", "data": "aGk=", "mimeType": "audio/wav"}
        for bad in ([image], [text("see"), image], [blob], [audio], [{"type": "hologram"}], [{}], []):
            with pytest.raises(AcpError) as error:
                await prompt(*bad)
            assert (error.value.code, error.value.data["admitted"]) == (-32602, False)
        for command in ("/status", "/stop", "/queue x"):
            with pytest.raises(AcpError) as error:
                await prompt(text(command), link)
            assert (error.value.code, error.value.reason) == (-32602, "usage")
        assert len(agent.turns) == 4


async def test_a_control_command_is_answered_before_its_response(autojump_clock):
    agent = ScriptedAgent({"long": [30.0]})
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        await client.ask_prompt(session, "long")
        await until_running(client)
        seen = len(client.frames)
        asked = await client.ask_prompt(session, "/status")
        assert (await client.answer(asked))["stopReason"] == "end_turn"
        said, answer = client.frames[seen:]
        assert answer["id"] == asked
        assert "phase open" in said["params"]["update"]["content"]["text"]
        assert "seq" not in ours_of(said)
        seen = len(client.frames)
        await client.prompt(session, "/statsu")
        assert "/status" in client.frames[seen]["params"]["update"]["content"]["text"]
        assert len(agent.turns) == 1
        loader = await lab.acp()
        await loader.call("session/load", {"sessionId": session, "cwd": "/"})
        assert chunks(loader, "user_message_chunk") == ["long"]  # control commands are no events


async def test_what_a_command_takes(autojump_clock):
    async with acp_lab() as lab:
        client = await lab.acp()
        session = await client.new_session()
        for command in ("/status now", "/kill", "/history many", "/queue", "/history 0"):
            with pytest.raises(AcpError) as error:
                await client.prompt(session, command)
            assert (error.value.code, error.value.reason, error.value.data["admitted"]) == (-32602, "usage", False)
            assert "Usage: /" in str(error.value)


async def test_no_frame_is_too_long(autojump_clock):
    agent = ScriptedAgent({"big": ["𝄞" * 300_000], "plan": [ToolCall("c", "x" * 300_000)]})
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        await client.prompt(session, "big")
        assert client.text() == "𝄞" * 300_000
        assert len({u["messageId"] for u in client.updates("agent_message_chunk")}) == 2
        with pytest.raises(AcpError, match="bytes"):
            await client.prompt(session, "plan")
        long = "p" * 100_000
        await client.prompt(session, long)
        loader = await lab.acp()
        await loader.call("session/load", {"sessionId": session, "cwd": "/"})
        assert long in loader.text("user_message_chunk")


async def test_lone_surrogates_of_an_agent_are_replaced(autojump_clock):
    async with acp_lab(agent=ScriptedAgent({"go": ["a\ud800b", "\ud83d\ude00"]})) as lab:
        client = await lab.acp()
        await client.prompt(await client.new_session(), "go")
        assert client.text() == "a\ufffdb😀"


# --- keys ----------------------------------------------------------------------------------------------


async def test_the_same_key_joins_the_same_turn(autojump_clock):
    agent = ScriptedAgent({"go": ["a", 5.0, "b"]})
    async with acp_lab(agent=agent) as lab:
        first, second = await lab.acp(), await lab.acp()
        session = await first.new_session()
        await second.call("session/resume", {"sessionId": session, "cwd": "/"})
        one = await first.ask_prompt(session, "go", key="k")
        two = await first.ask_prompt(session, "go", key="k")
        three = await second.ask_prompt(session, "go", key="k")
        for client, id_ in ((first, one), (first, two), (second, three)):
            assert (await client.answer(id_))["stopReason"] == "end_turn"
            assert follows_its_outcome(client, id_) == "completed"
        assert len(agent.turns) == 1
        assert second.text() == "ab"
        # Afterwards it is answered at once, with what became of it.
        seen = len(first.frames)
        assert (await first.prompt(session, "go", key="k"))["stopReason"] == "end_turn"
        assert len(first.frames) == seen + 1
        # The key is the session's: in another one it is free.
        await first.prompt(await first.new_session(), "something else", key="k")
        assert len(agent.turns) == 2


async def test_a_key_of_an_outcome_that_is_not_shown_yet_is_answered_behind_it(autojump_clock):
    async with acp_lab() as lab:
        first, second = await lab.acp(), await lab.acp()
        session = await first.new_session()
        await first.prompt(session, "go", key="k")
        load = await second.ask("session/load", {"sessionId": session, "cwd": "/"})
        again = await second.ask_prompt(session, "go", key="k")
        await second.answer(load)
        assert (await second.answer(again))["stopReason"] == "end_turn"
        assert second.place(lambda f: states_of(f) == "completed") < second.place(lambda f: f.get("id") == again)
        # One that goes on with what comes is not shown old events, and is answered all the same.
        third = await lab.acp()
        await third.call("session/resume", {"sessionId": session, "cwd": "/"})
        assert (await third.prompt(session, "go", key="k"))["stopReason"] == "end_turn"


def states_of(frame):
    return (ours_of(frame).get("turn") or {}).get("state")


async def test_the_same_key_with_another_prompt_is_a_conflict(autojump_clock):
    agent = ScriptedAgent()
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        await client.prompt(session, "one", key="k")
        for prompt in ("two", "one ", "/status"):
            with pytest.raises(AcpError) as error:
                await client.prompt(session, prompt, key="k")
            assert (error.value.code, error.value.reason) == (-32012, "conflict")
            assert error.value.data["admitted"] is False
        assert len(agent.turns) == 1
        for key in ("", "k" * 129, 3, [], True):
            with pytest.raises(AcpError) as error:
                await client.prompt(session, "three", key=key)
            assert (error.value.code, error.value.data["admitted"]) == (-32602, False)
        await client.prompt(session, "three", key="k" * 128)
        assert len(agent.turns) == 2


async def test_keys_while_draining(autojump_clock):
    agent = ScriptedAgent({"long": ["a", 10.0, "b"], "bad": [AgentError("no")]})
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        with pytest.raises(AcpError):
            await client.prompt(session, "bad", key="bad")
        running = await client.ask_prompt(session, "long", key="long")
        await until_running(client)
        await client.call("_gateway-trio/drain")
        joined = await client.ask_prompt(session, "long", key="long")
        with pytest.raises(AcpError) as error:
            await client.prompt(session, "bad", key="bad")
        assert (error.value.reason, error.value.data["admitted"]) == ("failed", True)
        with pytest.raises(AcpError) as error:
            await client.prompt(session, "new", key="new")
        assert (error.value.code, error.value.reason) == (-32010, "draining")
        assert error.value.data == {
            "reason": "draining",
            "retryable": True,
            "admitted": False,
            "reasons": ["operator"],
        }
        for id_ in (running, joined):
            assert (await client.answer(id_))["stopReason"] == "end_turn"
        await client.call("_gateway-trio/undrain")
        # What was refused did not use its key up.
        assert (await client.prompt(session, "new", key="new"))["stopReason"] == "end_turn"
        assert [turn.text for turn in agent.turns] == ["bad", "long", "new"]


@pytest.mark.parametrize(
    "words", ["/queue more of it", "/interrupt more of it", "/retry", "//not a command", "more"]
)
async def test_a_key_joins_whatever_became_a_turn(words, autojump_clock):
    agent = ScriptedAgent()
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        await client.prompt(session, "first")
        for _ in range(2):
            assert (await client.prompt(session, words, key="key"))["stopReason"] == "end_turn"
        assert len(agent.turns) == 2
        with pytest.raises(AcpError) as error:
            await client.prompt(session, f"{words}?", key="key")
        assert error.value.reason == "conflict"


async def test_an_answer_is_not_lost_with_what_was_trimmed(autojump_clock):
    go, over = trio.Event(), trio.Event()
    calls = [ToolCall(f"c{number}", "x" * 200) for number in range(100)]
    agent = ScriptedAgent({"first": [wait_for(go), *calls], "second": [*calls, signal(over)]})
    config = Config(session=SessionConfig(keep_bytes=1024))
    async with acp_lab(config, agent=agent, listener=(listener := SlowListener())) as lab:
        client = await lab.acp()
        session = await client.new_session()
        asked = [await client.ask_prompt(session, words) for words in ("first", "second")]
        await until_running(client)
        listener.stop()  # the gateway's next frame waits, and the log goes on without this client
        go.set()
        await over.wait()
        listener.go()
        for id_ in asked:
            assert (await client.answer(id_))["stopReason"] == "end_turn"
        assert states(client) == ["queued", "running", "queued", "completed"]
        assert any("lost" in ours_of(frame) for frame in client.frames)


async def test_an_answer_is_not_lost_by_resuming_behind_its_outcome(autojump_clock):
    go = trio.Event()
    agent = ScriptedAgent({"go": [wait_for(go), "done"]})
    async with acp_lab(agent=agent, listener=(listener := SlowListener())) as lab:
        client = await lab.acp()
        session = await client.new_session()
        asked = await client.ask_prompt(session, "go")
        await until_running(client)
        listener.stop()
        go.set()
        await trio.testing.wait_all_tasks_blocked()
        await client.ask("session/resume", {"sessionId": session, "cwd": "/"})
        await trio.testing.wait_all_tasks_blocked()
        listener.go()
        assert (await client.answer(asked))["stopReason"] == "end_turn"


def wait_for(event):
    async def step(turn, emit):
        await event.wait()

    return step


def signal(event):
    async def step(turn, emit):
        event.set()

    return step


# --- what a prompt does in mid-turn ---------------------------------------------------------------------


async def test_on_busy(autojump_clock):
    agent = ScriptedAgent({"long": ["part", 30.0]})
    async with acp_lab(Config(session=SessionConfig(queue_limit=2)), agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        long = await client.ask_prompt(session, "long")
        await until_running(client)
        with pytest.raises(AcpError) as error:
            await client.prompt(session, "no", onBusy="refuse")
        assert (error.value.code, error.value.reason, error.value.data["admitted"]) == (-32011, "busy", False)
        queued = await client.ask_prompt(session, "queued")
        first = await client.ask_prompt(session, "first", onBusy="interrupt")
        assert (await client.answer(long))["stopReason"] == "cancelled"
        for id_ in (first, queued):
            assert (await client.answer(id_))["stopReason"] == "end_turn"
        assert [turn.text for turn in agent.turns] == ["long", "first", "queued"]
        history = [(item.role, item.text, item.interrupted) for item in agent.turns[1].history]
        assert history == [("user", "long", False), ("assistant", "part", True)]
        for busy in ("later", 3, False, [], {}, ["queue"]):
            with pytest.raises(AcpError) as error:
                await client.prompt(session, "x", onBusy=busy)
            assert (error.value.code, error.value.data["admitted"]) == (-32602, False)


async def test_a_full_queue_is_busy_also_for_an_interrupt(autojump_clock):
    agent = ScriptedAgent({"long": [30.0]})
    async with acp_lab(Config(session=SessionConfig(queue_limit=2)), agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        ids = [await client.ask_prompt(session, "long")]
        await until_running(client)
        ids += [await client.ask_prompt(session, words) for words in ("one", "two")]
        for busy in ("queue", "interrupt"):
            with pytest.raises(AcpError) as error:
                await client.prompt(session, "three", onBusy=busy)
            assert (error.value.code, error.value.reason, error.value.data["admitted"]) == (-32011, "busy", False)
            assert error.value.data["retryable"] is True
        positions = [ours_of(f)["turn"]["position"] for f in client.frames if states_of(f) == "queued"]
        assert positions == [0, 0, 1]
        for id_ in ids:
            assert (await client.answer(id_))["stopReason"] == "end_turn"


async def test_the_configs_policy_is_the_default(autojump_clock):
    agent = ScriptedAgent({"long": [30.0]})
    async with acp_lab(Config(session=SessionConfig(busy="refuse")), agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        long = await client.ask_prompt(session, "long")
        await until_running(client)
        with pytest.raises(AcpError) as error:
            await client.prompt(session, "no")
        assert error.value.reason == "busy"
        queued = await client.ask_prompt(session, "yes", onBusy="queue")
        await client.notify("session/cancel", {"sessionId": session})
        assert (await client.answer(long))["stopReason"] == "cancelled"
        assert (await client.answer(queued))["stopReason"] == "end_turn"


# --- cancelling ---------------------------------------------------------------------------------------------


async def test_session_cancel_ends_the_running_turn_alone(autojump_clock):
    agent = ScriptedAgent({"long": ["part", 30.0]})
    async with acp_lab(agent=agent) as lab:
        first, second, third = await lab.acp(), await lab.acp(), await lab.acp()
        session = await first.new_session()
        await second.call("session/resume", {"sessionId": session, "cwd": "/"})
        long = await first.ask_prompt(session, "long")
        queued = await first.ask_prompt(session, "queued")
        await until_running(first)
        await third.notify("session/cancel", {"sessionId": session})  # it has not attached it
        await third.call("_gateway-trio/status")
        assert agent.running == 1
        await second.notify("session/cancel", {"sessionId": session})  # whoever has it may
        assert (await first.answer(long))["stopReason"] == "cancelled"
        assert follows_its_outcome(first, long) == "cancelled"
        assert (await first.answer(queued))["stopReason"] == "end_turn"
        await first.notify("session/cancel", {"sessionId": session})  # nothing runs: nothing happens
        assert (await first.prompt(session, "hi"))["stopReason"] == "end_turn"


async def test_cancel_request_ends_exactly_that_request(autojump_clock):
    agent = ScriptedAgent({"long": [30.0]})
    async with acp_lab(agent=agent) as lab:
        client, other = await lab.acp(), await lab.acp()
        session = await client.new_session()
        ids = [await client.ask_prompt(session, words) for words in ("long", "two", "three")]
        await until_running(client)
        for id_ in ids:
            await other.notify("$/cancel_request", {"requestId": id_})  # ids are a connection's own
        await other.call("_gateway-trio/status")
        assert agent.running == 1
        await client.notify("$/cancel_request", {"requestId": ids[1]})
        assert (await client.answer(ids[1]))["stopReason"] == "cancelled"
        assert follows_its_outcome(client, ids[1]) == "cancelled"
        await client.notify("$/cancel_request", {"requestId": ids[0]})
        assert (await client.answer(ids[0]))["stopReason"] == "cancelled"
        assert (await client.answer(ids[2]))["stopReason"] == "end_turn"
        await client.notify("$/cancel_request", {"requestId": ids[2]})  # it has its outcome
        assert [turn.text for turn in agent.turns] == ["long", "three"]


async def test_a_prompt_cancelled_while_it_is_stored_is_cancelled(autojump_clock):
    store, agent = FailingStore(), ScriptedAgent()
    async with acp_lab(agent=agent, store=store) as lab:
        client = await lab.acp()
        session = await client.new_session()
        store.stall()
        asked = await client.ask_prompt(session, "hi")
        await client.notify("$/cancel_request", {"requestId": asked})
        await client.call("_gateway-trio/status")
        store.go()
        assert (await client.answer(asked))["stopReason"] == "cancelled"
        assert agent.turns == []


SLEEP = ExecCommand("sleeper", command="sleep 300")
ECHO = ExecCommand("echoer", command='printf "<%s>" "$@"', args="words")


async def test_cancelling_execs():
    config = commands(SLEEP, ECHO, exec=ExecConfig(max_running=1))
    async with acp_lab(config) as lab:
        client, other = await lab.acp(), await lab.acp()
        session = await client.new_session()
        await other.call("session/resume", {"sessionId": session, "cwd": "/"})
        running = await client.ask_prompt(session, "/sleeper")
        await client.until_state("running")
        waiting = await client.ask_prompt(session, "/echoer a")
        await client.until(
            lambda f: (
                ours_of(f).get("exec", {}).get("state") == "queued" and states(client, "exec").count("queued") == 2
            )
        )
        await client.notify("$/cancel_request", {"requestId": waiting})
        answer = await client.answer(waiting)
        assert answer["stopReason"] == "cancelled"
        assert answer["_meta"]["gateway-trio"]["status"] == "cancelled"
        # `session/cancel` of another connection leaves it alone; of this one, with no turn, it ends it.
        await other.notify("session/cancel", {"sessionId": session})
        await other.call("_gateway-trio/status")
        assert lab.gateway.status()["execs"] == 1
        await client.notify("session/cancel", {"sessionId": session})
        answer = await client.answer(running)
        assert (answer["stopReason"], answer["_meta"]["gateway-trio"]["status"]) == ("cancelled", "cancelled")
        assert follows_its_outcome(client, running) == "cancelled"
        # And one that belongs to no session.
        once = await client.ask("_gateway-trio/exec", {"name": "sleeper"})
        await until_execs(client, 1)
        await client.notify("$/cancel_request", {"requestId": once})
        assert (await client.answer(once))["status"] == "cancelled"


async def until_execs(client, count):
    """Ask for the status until so many execs are counted."""
    while (await client.call("_gateway-trio/status"))["execs"] != count:
        pass


async def test_session_cancel_with_a_turn_leaves_execs(autojump_clock):
    agent = ScriptedAgent({"long": [30.0]})
    autojump_clock.autojump_threshold = 0.5
    async with acp_lab(commands(SLEEP), agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        long = await client.ask_prompt(session, "long")
        await until_running(client)
        exec_ = await client.ask_prompt(session, "/sleeper")
        await client.until(lambda f: ours_of(f).get("exec", {}).get("state") == "running")
        await client.notify("session/cancel", {"sessionId": session})
        assert (await client.answer(long))["stopReason"] == "cancelled"
        assert lab.gateway.status()["execs"] == 1
        await client.notify("$/cancel_request", {"requestId": exec_})
        assert (await client.answer(exec_))["stopReason"] == "cancelled"


async def test_an_exec_is_answered_like_a_prompt_with_the_facts():
    config = commands(ECHO, ExecCommand("fails", command="echo partial; echo why >&2; exit 7"))
    agent = ScriptedAgent()
    async with acp_lab(config, agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        asked = await client.ask_prompt(session, "/ECHOER a 'b c'", key="k")
        answer = await client.answer(asked)
        facts = answer["_meta"]["gateway-trio"]
        assert answer["stopReason"] == "end_turn"
        assert set(facts) == {"id", "status", "exitCode", "signal", "seconds", "bytes", "cut", "background"}
        assert (facts["status"], facts["exitCode"], facts["signal"], facts["bytes"]) == ("exited", 0, None, 8)
        assert client.text() == "<a><b c>"
        assert states(client, "exec") == ["queued", "running", "completed"]
        assert follows_its_outcome(client, asked) == "completed"
        assert {ours_of(f)["execId"] for f in client.frames if "at" in ours_of(f)} == {facts["id"]}
        assert (await client.prompt(session, "/ECHOER a 'b c'", key="k")) == answer  # not run again
        assert states(client, "exec") == ["queued", "running", "completed"]
        failed = await client.prompt(session, "/fails")
        assert failed["_meta"]["gateway-trio"]["exitCode"] == 7
        assert "partial\nwhy\n" in client.text()
        assert agent.turns == []
        # An exec's words are in no history.
        await client.prompt(session, "hi")
        assert not agent.turns[0].history


# --- sessions: loading, resuming, listing, closing ---------------------------------------------------------------


async def test_new_answers_before_it_updates(autojump_clock):
    config = commands(ECHO, AliasCommand("e", target="/echoer x", description="short"))
    async with acp_lab(config) as lab:
        client = await lab.acp()
        seen = len(client.frames)
        asked = await client.ask("session/new", {"cwd": "/", "mcpServers": []})
        result = await client.answer(asked)
        await client.until(lambda f: f.get("method") == "session/update")
        assert client.frames[seen]["id"] == asked
        assert result["_meta"]["gateway-trio"] == {
            "recovered": True,
            "epoch": result["_meta"]["gateway-trio"]["epoch"],
            "last": 0,
        }
        listed = {c["name"]: c for c in client.updates("available_commands_update")[0]["availableCommands"]}
        assert listed["echoer"]["input"]["hint"] == "[WORD …]"
        assert listed["e"]["description"] == "short"
        assert "status" in listed


async def test_load_shows_all_and_answers_behind_it(autojump_clock):
    agent = ScriptedAgent({"long": ["part", 5.0, " two", 5.0, " three"]})
    async with acp_lab(agent=agent) as lab:
        first, second = await lab.acp(), await lab.acp()
        session = await first.new_session()
        await first.prompt(session, "hi")
        long = await first.ask_prompt(session, "long")
        await first.until(lambda f: chunks(first)[-1:] == ["part"])
        last = lab.gateway.sessions.find(session).log.last
        load = await second.ask("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
        ours = (await second.answer(load))["_meta"]["gateway-trio"]
        assert ours["recovered"] is True
        assert ours["last"] == last
        before = second.frames[: second.place(lambda f: f.get("id") == load)]
        assert [ours_of(f)["seq"] for f in before if "seq" in ours_of(f)] == list(range(1, last + 1))
        assert chunks(second) == ["hi", "part"]
        assert chunks(second, "user_message_chunk") == ["hi", "long"]
        # Then the commands, and then what comes.
        await first.answer(long)
        await second.until_state("completed")
        await second.until(lambda f: second.text() == "hipart two three")
        behind = second.frames[second.place(lambda f: f.get("id") == load) + 1]
        assert behind["params"]["update"]["sessionUpdate"] == "available_commands_update"
        # The sender's own prompts were not echoed, but are shown when it loads.
        assert chunks(first, "user_message_chunk") == []
        await first.call("session/load", {"sessionId": session, "cwd": "/"})
        assert chunks(first, "user_message_chunk") == ["hi", "long"]


async def test_loading_behind_a_number(autojump_clock):
    agent = ScriptedAgent({"long": ["part", 5.0, " two"]})
    async with acp_lab(agent=agent) as lab:
        first, second = await lab.acp(), await lab.acp()
        session = await first.new_session()
        await first.prompt(session, "hi")
        long = await first.ask_prompt(session, "long")
        await first.until(lambda f: chunks(first)[-1:] == ["part"])
        log = lab.gateway.sessions.find(session).log
        params = {"sessionId": session, "cwd": "/", "mcpServers": []}

        def behind(after, **more):
            return {**params, "_meta": {"gateway-trio": {"after": after, **more}}}

        load = await second.ask("session/load", behind(3, epoch=lab.gateway.sessions.find(session).epoch))
        ours = (await second.answer(load))["_meta"]["gateway-trio"]
        assert (ours["recovered"], ours["last"]) == (True, log.last)
        before = second.frames[: second.place(lambda f: f.get("id") == load)]
        assert [ours_of(f)["seq"] for f in before if "seq" in ours_of(f)] == list(range(4, log.last + 1))
        # A message that was growing comes again from its start, also before the answer.
        place = len(second.frames)
        load = await second.ask("session/load", behind(log.last))
        await second.answer(load)
        again = [f["params"]["update"] for f in second.frames[place:] if "seq" in ours_of(f)]
        assert [(u["content"]["text"], u["_meta"]["gateway-trio"]["at"]) for u in again] == [("part", 0)]
        await first.answer(long)
        await second.until_state("completed")
        for wrong in (behind(log.last + 1), behind(3, epoch="another")):
            assert (await refused(second, "session/load", wrong)).reason == "conflict"
        for wrong in (-1, "3", True, 1.5):
            assert (await refused(second, "session/load", behind(wrong))).reason == "invalid_params"


async def test_loading_an_empty_session(autojump_clock):
    async with acp_lab() as lab:
        first, second = await lab.acp(), await lab.acp()
        session = await first.new_session()
        result = await second.call("session/load", {"sessionId": session, "cwd": "/"})
        assert result["_meta"]["gateway-trio"]["last"] == 0


async def test_resume_with_and_without_after(autojump_clock):
    agent = ScriptedAgent({"long": ["part", 5.0, " two"]})
    async with acp_lab(agent=agent) as lab:
        first, second, third = await lab.acp(), await lab.acp(), await lab.acp()
        session = await first.new_session()
        await first.prompt(session, "hi")
        long = await first.ask_prompt(session, "long")
        await first.until(lambda f: chunks(first)[-1:] == ["part"])
        live = await second.call("session/resume", {"sessionId": session, "cwd": "/"})
        assert live["_meta"]["gateway-trio"]["recovered"] is True
        meta = {"gateway-trio": {"after": 3, "epoch": live["_meta"]["gateway-trio"]["epoch"]}}
        await third.call("session/resume", {"sessionId": session, "cwd": "/", "_meta": meta})
        await first.answer(long)
        for client in (second, third):
            await client.until(lambda f: states_of(f) == "completed" and ours_of(f)["seq"] > 5)
        assert second.text() == "part two"  # a growing message from its start
        assert states(second) == ["completed"]
        # After 3: the message 3 was not ended by then, so it is told from its start; then each number once.
        numbers = [ours_of(f)["seq"] for f in third.frames if ours_of(f).get("at", 0) == 0 and "seq" in ours_of(f)]
        assert numbers[0] == 3 or numbers[0] == 4
        assert numbers == sorted(set(numbers))
        assert chunks(third, "user_message_chunk") == ["long"]


@pytest.mark.parametrize("ours", [{"after": -1}, {"after": "3"}, {"after": 1.5}, {"after": True}])
async def test_a_bad_after_is_refused(autojump_clock, ours):
    async with acp_lab() as lab:
        client = await lab.acp()
        session = await client.new_session()
        error = await refused(
            client, "session/resume", {"sessionId": session, "cwd": "/", "_meta": {"gateway-trio": ours}}
        )
        assert error.code == -32602


async def test_two_clients_on_one_session_see_the_same(autojump_clock):
    agent = ScriptedAgent({"long": ["a", 1.0, "b", ToolCall("c", "looks"), "c"]})
    async with acp_lab(agent=agent) as lab:
        first, second = await lab.acp(), await lab.acp()
        session = await first.new_session()
        await second.call("session/resume", {"sessionId": session, "cwd": "/"})
        await first.prompt(session, "long")
        await second.until_state("completed")
        assert chunks(second, "user_message_chunk") == ["long"]
        assert chunks(first, "user_message_chunk") == []

        def shown(client):
            return [f for f in client.frames if "seq" in ours_of(f) and ours_of(f)["seq"] > 1]

        assert shown(first) == shown(second)


async def test_list_has_pages_newest_first(autojump_clock):
    async with acp_lab() as lab:
        client = await lab.acp()
        made = [await client.new_session() for _ in range(230)]
        chat = await lab.chat("named")
        await chat.send("/whoami")
        await chat.receive()
        found, cursor, pages = [], None, 0
        while pages == 0 or cursor is not None:
            page = await client.call("session/list", {"cursor": cursor} if cursor else {})
            found += page["sessions"]
            cursor, pages = page.get("nextCursor"), pages + 1
        assert pages == 4
        assert [s["sessionId"] for s in found[1:]] == made[::-1]
        assert found[0]["title"] == "named"
        # What `/chat` made can be loaded by its id.
        await client.call("session/load", {"sessionId": found[0]["sessionId"], "cwd": "/"})


async def test_no_frame_is_over_256_kib_whatever_a_client_says(autojump_clock):
    """What it said is repeated in answers: an id, a name, a method, each as long as it can be."""
    long = "\U0001f600" * 200_000  # 12 bytes of JSON for each of 4
    longest_id, longest_name = long[:256], long[:128]
    async with acp_lab(commands(SLEEP)) as lab:
        client = await lab.connect()
        sent = 0

        async def ask(method, params=None, id_=longest_id, **more):
            nonlocal sent
            await client.send(
                json.dumps(
                    {"jsonrpc": "2.0", "id": id_, "method": method, "params": params, **more}, ensure_ascii=False
                )
            )
            sent += 1
            await client.until(lambda _: sum("method" not in frame for frame in client.frames) >= sent)
            return [frame for frame in client.frames if "method" not in frame][-1]

        await ask("initialize", {"protocolVersion": 1})
        session = (await ask("session/new", {"cwd": "/"}))["result"]["sessionId"]
        principal = next(iter(lab.gateway.connections)).principal
        for number in range(100):
            await lab.gateway.sessions.create(principal, f"{number:03}{longest_name[3:]}")
        listed = (await ask("session/list", {}))["result"]["sessions"]
        assert listed[0]["title"].endswith(longest_name[3:])
        assert (await ask("session/list", {}, id_=long))["error"]["data"]["reason"] == "invalid_request"
        for method, params in (
            (long, {}),
            ("authenticate", {"methodId": long}),
            ("session/load", {"sessionId": long, "cwd": "/"}),
            ("session/resume", {"sessionId": long, "cwd": "/"}),
            ("session/close", {"sessionId": long}),
            ("session/list", {"cursor": long}),
            ("session/list", {"cursor": [long]}),
            ("session/prompt", {"sessionId": session, "prompt": [{"type": long}]}),
            (
                "session/prompt",
                {"sessionId": session, "prompt": [text("x")], "_meta": {"gateway-trio": {"key": long}}},
            ),
            ("session/prompt", {"sessionId": session, "prompt": [text(f"/status {long}")]}),
            ("_gateway-trio/exec", {"name": long}),
            ("_gateway-trio/exec", {"name": "sleeper", "args": [long]}),
            ("_gateway-trio/kill", {"id": long}),
            ("_gateway-trio/undrain", {"reason": long}),
        ):
            answer = await ask(method, params)
            assert "error" in answer, method[:40]
        for command in ("/kill", "/allow", f"/{long[:9]}", "/say"):
            await ask("session/prompt", {"sessionId": session, "prompt": [text(f"{command} {long}")]})
        await ask("session/list", {}, jsonrpc=long)
        assert max(len(json.dumps(frame, separators=(",", ":"))) for frame in client.frames) <= 256 * 1024
        assert lab.gateway.connections


async def test_a_long_id_to_cancel_is_none(autojump_clock):
    async with acp_lab(agent=ScriptedAgent({"long": [30.0]})) as lab:
        client = await lab.acp()
        session = await client.new_session()
        asked = await client.ask_prompt(session, "long")
        await until_running(client)
        for id_ in ("x" * 300_000, 10**4000):
            await client.notify("$/cancel_request", {"requestId": id_})
        assert (await client.answer(asked))["stopReason"] == "end_turn"


async def test_close_ends_what_runs_for_everyone_and_then_answers(autojump_clock):
    agent = ScriptedAgent({"long": ["part", 30.0]})
    async with acp_lab(agent=agent) as lab:
        first, second = await lab.acp(), await lab.acp()
        session = await first.new_session()
        await second.call("session/resume", {"sessionId": session, "cwd": "/"})
        running = await first.ask_prompt(session, "long")
        queued = await second.ask_prompt(session, "two")
        await first.until(lambda f: chunks(first) == ["part"])
        close = await second.ask("session/close", {"sessionId": session})
        assert await second.answer(close) == {}
        assert (await second.answer(queued))["stopReason"] == "cancelled"
        assert (await first.answer(running))["stopReason"] == "cancelled"
        assert second.frames[-1]["id"] == close
        assert agent.running == 0
        assert (
            await refused(second, "session/prompt", {"sessionId": session, "prompt": [text("hi")]})
        ).code == -32002
        # The other one still has it, and it can be had again.
        assert (await first.prompt(session, "hi"))["stopReason"] == "end_turn"
        await second.call("session/load", {"sessionId": session, "cwd": "/"})
        assert second.text().endswith("hi")
        assert await second.call("session/close", {"sessionId": session}) == {}


async def test_close_ends_execs():
    async with acp_lab(commands(SLEEP)) as lab:
        client = await lab.acp()
        session = await client.new_session()
        exec_ = await client.ask_prompt(session, "/sleeper")
        await client.until_state("running")
        assert await client.call("session/close", {"sessionId": session}) == {}
        assert (await client.answer(exec_))["stopReason"] == "cancelled"


async def test_every_close_is_answered(autojump_clock):
    agent = ScriptedAgent({"stuck": [STUCK]})  # so that closing takes `cleanup_seconds`
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        running = await client.ask_prompt(session, "stuck")
        await until_running(client)
        closes = [await client.ask("session/close", {"sessionId": session}) for _ in range(3)]
        for close in closes:
            assert await client.answer(close) == {}
        assert (await client.answer(running))["stopReason"] == "cancelled"


async def test_a_session_that_was_closed_and_loaded_at_once(autojump_clock):
    async with acp_lab(agent=ScriptedAgent({"long": ["part", 30.0]})) as lab:
        client = await lab.acp()
        session = await client.new_session()
        await client.ask_prompt(session, "long")
        await client.until(lambda f: chunks(client) == ["part"])
        close = await client.ask("session/close", {"sessionId": session})
        load = await client.ask("session/load", {"sessionId": session, "cwd": "/"})
        assert await client.answer(close) == {}
        await client.answer(load)


# --- slow clients ---------------------------------------------------------------------------------------------------


async def test_a_client_that_takes_nothing_is_closed_and_the_turn_goes_on(autojump_clock):
    over = trio.Event()
    agent = ScriptedAgent({"go": [*(f"{number} " for number in range(1000)), signal(over)]})
    config = Config(server=ServerConfig(send_seconds=2))
    async with acp_lab(config, agent=agent, listener=(listener := SlowListener())) as lab:
        client = await lab.acp()
        session = await client.new_session()
        await client.ask_prompt(session, "go")
        listener.stop()
        began = trio.current_time()
        await over.wait()
        assert trio.current_time() == began  # whoever reads or not
        await trio.sleep(3)
        listener.go()  # it reads again, within `close_seconds`
        await client.until(lambda f: f.get("method") == "_gateway-trio/goodbye")
        assert await client.code() == 4101
        assert client.frames[-1]["params"]["code"] == 4101
        second = await lab.acp()
        await second.call("session/load", {"sessionId": session, "cwd": "/"})
        assert second.text() == "".join(f"{number} " for number in range(1000))


async def test_answers_that_are_not_taken_fill_the_outbox_and_no_more(autojump_clock):
    async with acp_lab(listener=(listener := SlowListener())) as lab:
        client = await lab.acp()
        listener.stop()
        for _ in range(1100):
            await client.send({"jsonrpc": "2.0", "id": 5, "method": "_gateway-trio/status"})
        await trio.sleep(1)
        listener.go()
        assert await client.code() == 4101
        assert len([f for f in client.frames if f.get("id") == 5]) <= 1025


# --- our requests -------------------------------------------------------------------------------------------------


async def test_status_and_the_operators_drain(autojump_clock):
    agent = ScriptedAgent({"long": [30.0]})
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        long = await client.ask_prompt(session, "long")
        queued = await client.ask_prompt(session, "queued")
        await until_running(client)
        status = await client.call("_gateway-trio/drain", {"why": "moving house"})
        assert (status["phase"], status["reasons"], status["revocable"]) == ("draining", ["operator"], True)
        assert status["accepts"] == ["exec", "control"]
        assert status["asked"]["operator"]["why"] == "moving house"
        assert status["asked"]["operator"]["by"] == "local"
        assert status["asked"]["operator"]["at"] > 0
        assert status["remainingMs"] is None
        notice = client.phases()[-1]
        assert (notice["phase"], notice["accepts"], notice["turns"]) == ("draining", ["exec", "control"], 1)
        assert (await client.answer(long))["stopReason"] == "end_turn"
        await trio.sleep(20)
        assert [turn.text for turn in agent.turns] == ["long"]  # what waits, waits
        for reason in ("backend", "shutdown"):
            assert (await client.call("_gateway-trio/undrain", {"reason": reason}))["phase"] == "draining"
        assert (await client.call("_gateway-trio/undrain"))["phase"] == "open"
        assert (await client.answer(queued))["stopReason"] == "end_turn"
        assert client.phases()[-1]["phase"] == "open"


async def test_exec_answers_once_with_everything():
    config = commands(
        ECHO,
        ExecCommand("one", command='printf "<%s>" "$@"', args="text"),
        ExecCommand("none", command="echo none"),
        ExecCommand("big", command="head -c 60000 /dev/zero | tr '\\0' '\\001\\377'; yes é | head -c 400000"),
        AliasCommand("e", target="/echoer 'a b'"),
        AliasCommand("s", target="/status"),
    )
    async with acp_lab(config) as lab:
        client = await lab.acp()

        async def run(name, *args):
            return await client.call("_gateway-trio/exec", {"name": name, "args": list(args)})

        answer = await run("echoer", "x y", "", "*")
        assert answer["output"] == "<x y><><*>"
        assert (answer["status"], answer["exitCode"], answer["bytes"]) == ("exited", 0, 10)
        assert (await run("ECHOER"))["output"] == "<>"
        assert (await run("one", "a  b"))["output"] == "<a  b>"
        assert (await run("e", "c d"))["output"] == "<a b><c d>"
        big = await run("big")
        assert big["cut"] > 0
        assert big["bytes"] > 400_000
        for name, args, reason in (
            ("nope", [], "invalid_params"),
            ("status", [], "usage"),
            ("s", [], "usage"),
            ("none", ["x"], "usage"),
            ("one", ["x", "y"], "usage"),
            ("echoer", ["\0"], "usage"),
            ("echoer", ["x" * 4097], "usage"),
            ("echoer", ["x"] * 33, "usage"),
        ):
            with pytest.raises(AcpError) as error:
                await run(name, *args)
            assert (error.value.code, error.value.reason, error.value.data["admitted"]) == (-32602, reason, False)
        await client.call("_gateway-trio/drain")
        assert (await run("echoer", "z"))["output"] == "<z>"
        with pytest.raises(AcpError) as error:
            await run("e")
        assert (error.value.code, error.value.reason) == (-32010, "draining")
        assert error.value.data["reasons"] == ["operator"]
        assert "/echoer" in str(error.value)


async def test_kill_ends_an_exec_whoever_waits_for_it():
    async with acp_lab(commands(SLEEP)) as lab:
        client, other = await lab.acp(), await lab.acp()
        session = await client.new_session()
        asked = await client.ask_prompt(session, "/sleeper")
        exec_id = ours_of(await client.until_state("running"))["exec"]["id"]
        assert await other.call("_gateway-trio/kill", {"id": exec_id}) == {}
        answer = await client.answer(asked)
        assert answer["stopReason"] == "end_turn"
        assert answer["_meta"]["gateway-trio"]["status"] == "killed"
        error = await refused(other, "_gateway-trio/kill", {"id": exec_id})
        assert (error.code, error.reason) == (-32002, "unknown_exec")


async def test_too_many_execs_are_busy():
    config = commands(SLEEP, exec=ExecConfig(max_running=1, max_waiting=1))
    async with acp_lab(config) as lab:
        client = await lab.acp()
        ids = [await client.ask("_gateway-trio/exec", {"name": "sleeper"}) for _ in range(2)]
        error = await refused(client, "_gateway-trio/exec", {"name": "sleeper"})
        assert (error.code, error.reason, error.data["admitted"]) == (-32011, "busy", False)
        for id_ in ids:
            await client.notify("$/cancel_request", {"requestId": id_})
            assert (await client.answer(id_))["status"] == "cancelled"


async def test_an_exec_that_cannot_be_stored_is_not_run(tmp_path):
    store = FailingStore()
    made = tmp_path / "made"
    async with acp_lab(commands(ExecCommand("make", command=f"touch {made}")), store=store) as lab:
        client = await lab.acp()
        session = await client.new_session()
        store.failing = True
        error = await refused(client, "_gateway-trio/exec", {"name": "make"})
        assert (error.code, error.reason, error.data["admitted"]) == (-32014, "store_unavailable", False)
        with pytest.raises(AcpError) as refusal:
            await client.prompt(session, "/make")
        assert refusal.value.reason == "store_unavailable"
        assert not made.exists()
        store.failing = False
        await client.prompt(session, "/make")
        assert made.exists()


async def test_an_exec_that_waits_when_the_time_is_up_is_refused():
    config = commands(
        SLEEP,
        exec=ExecConfig(max_running=1, term_seconds=1),
        drain=DrainConfig(grace_seconds=0.1, exec_seconds=0.5),
    )
    async with acp_lab(config) as lab:
        client = await lab.acp()
        session = await client.new_session()
        running = await client.ask_prompt(session, "/sleeper")
        waiting = [
            await client.ask_prompt(session, "/sleeper"),
            await client.ask("_gateway-trio/exec", {"name": "sleeper"}),
        ]
        await client.until_state("running")
        lab.gateway.drain("shutdown")
        answer = await client.answer(running)
        assert answer["_meta"]["gateway-trio"]["status"] == "deadline"
        for id_ in waiting:
            with pytest.raises(AcpError) as error:
                await client.answer(id_)
            assert (error.value.code, error.value.reason, error.value.data["admitted"]) == (
                -32010,
                "draining",
                False,
            )
            assert error.value.data["reasons"] == ["shutdown"]


async def test_restart_checks_first(autojump_clock):
    faults = ["line 3: no such key"]

    async def check():
        return faults.pop() if faults else None

    async with acp_lab(check_restart=check) as lab:
        client = await lab.acp()
        error = await refused(client, "_gateway-trio/restart")
        assert (error.code, error.reason) == (-32012, "conflict")
        assert "line 3: no such key" in str(error)
        assert lab.gateway.phase.value == "open"
        assert "restarts" in (await client.call("_gateway-trio/restart"))["message"]
        await lab.gateway.closed.wait()
        assert await client.code() == 1012
        assert lab.gateway.report.reason == "restart"
        assert client.phases()[0]["phase"] == "open"
        assert client.phases()[1]["reasons"] == ["restart"]


async def test_the_way_down_as_a_client_sees_it(autojump_clock):
    agent = ScriptedAgent({"long": ["a", 3.0, "b"]})
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        long = await client.ask_prompt(session, "long")
        await until_running(client)
        lab.gateway.drain("shutdown", by="a test")
        assert (await client.answer(long))["stopReason"] == "end_turn"
        await lab.gateway.closed.wait()
        shown = client.phases()
        assert [p["phase"] for p in shown[:2]] == ["open", "draining"]
        assert shown[1]["reasons"] == ["shutdown"]
        assert shown[1]["remainingMs"] == 20_000
        assert shown[1]["revocable"] is False
        assert shown[1]["turns"] == 1
        # First of all: before the rest of the answer.
        draining = client.place(lambda f: f.get("params", {}).get("phase") == "draining")
        assert draining < client.place(lambda f: states_of(f) == "completed")
        assert await client.code() == 1012


async def test_text_that_comes_after_the_end_is_not_shown(autojump_clock):
    async def says_more(turn, emit):
        with trio.CancelScope(shield=True):
            await trio.sleep(20)
            with pytest.raises(Exception, match="has its outcome"):
                await emit(TextDelta("too late"))
        said.set()

    said = trio.Event()
    async with acp_lab(agent=ScriptedAgent({"stuck": ["part", says_more]})) as lab:
        client = await lab.acp()
        session = await client.new_session()
        stuck = await client.ask_prompt(session, "stuck")
        await client.until(lambda f: chunks(client) == ["part"])
        await client.notify("session/cancel", {"sessionId": session})
        assert (await client.answer(stuck))["stopReason"] == "cancelled"
        assert lab.gateway.status()["abandoned"]
        assert (await client.prompt(session, "hi"))["stopReason"] == "end_turn"
        await said.wait()
        assert client.text() == "parthi"


async def test_an_agent_says_that_it_met_its_models_limit():
    agent = ScriptedAgent({"hi": ["a", Stop("max_tokens")]})
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        assert await client.prompt(session, "hi") == {"stopReason": "max_tokens"}
        assert await client.prompt(session, "ho") == {"stopReason": "end_turn"}


async def test_close_waits_for_the_outcome_of_a_prompt_that_it_dropped(autojump_clock):
    """Nothing runs or waits any more, and the store has not taken the outcome yet."""
    store = FailingStore()
    async with acp_lab(agent=ScriptedAgent({"long": [1.0]}), store=store) as lab:
        client = await lab.acp()
        session = await client.new_session()
        running = await client.ask_prompt(session, "long")
        await client.until_state("running")
        queued = await client.ask_prompt(session, "two")
        await trio.testing.wait_all_tasks_blocked()
        lab.gateway.drain("operator")
        assert (await client.answer(running))["stopReason"] == "end_turn"
        store.stall()
        close = await client.ask("session/close", {"sessionId": session})
        await trio.testing.wait_all_tasks_blocked()
        assert not any(frame.get("id") == close for frame in client.frames)
        store.go()
        assert (await client.answer(queued))["stopReason"] == "cancelled"
        assert await client.answer(close) == {}
