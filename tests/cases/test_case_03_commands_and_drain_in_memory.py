"""Cases 3, 4, 6, 7, 12, 13, 16, 17: what becomes of a prompt in mid-turn and in a drain, for every reason of one.

In memory, with real execs where the case is about one: nothing here is timed, agents wait until they are let go.
"""

from __future__ import annotations

import json

import pytest
import trio
import trio.testing

from gateway_trio import Config
from gateway_trio.config import ConfigError, SessionConfig, parse_config
from gateway_trio.core.commands import AliasCommand, ExecCommand
from gateway_trio.core.events import Change, Prompt
from gateway_trio.testing import AcpError, ScriptedAgent, open_gateway

REASONS = ["operator", "backend", "restart", "shutdown"]
PATIENCE = 60


def quick(*commands):
    return {command.name: command for command in commands}


class Gated(ScriptedAgent):
    """An agent whose answer to `long` waits until the test lets it go."""

    def __init__(self):
        super().__init__({"long": ["begun ", self._wait, "done"]})
        self.gate = trio.Event()
        self._held, self._news = 0, trio.Event()

    async def _wait(self, turn, emit):
        self._held += 1
        self._news.set()
        await self.gate.wait()

    async def until_held(self, count: int) -> None:
        """Wait until so many turns wait for the gate."""
        while self._held < count:
            self._news = trio.Event()
            await self._news.wait()

    def seen(self) -> list[str]:
        """Return everything that the model was shown."""
        return [text for turn in self.turns for text in (turn.text, *(item.text for item in turn.history))]


async def refusal(client, session, text, **ours) -> AcpError:
    with pytest.raises(AcpError) as caught:
        await client.prompt(session, text, **ours)
    return caught.value


async def begin(client):
    """Return a new session and the id of the prompt `long`, whose turn runs in it."""
    session = await client.new_session()
    id_ = await client.ask_prompt(session, "long")
    await client.until_state("running")
    return session, id_


def prompts(gateway) -> list[str]:
    """Return the accepted prompts of lane turn."""
    return [
        entry.body.text
        for session in gateway.sessions
        for entry in session.log
        if isinstance(entry.body, Prompt) and entry.body.lane == "turn"
    ]


@pytest.mark.parametrize("busy", ["queue", "interrupt", "refuse"])
@pytest.mark.parametrize("drained", [False, True])
async def test_case_03_a_quick_command_in_mid_turn_is_never_text(busy, drained, tmp_path):
    notes = tmp_path / "notes"
    note = ExecCommand("note", command=f'echo "$1" >> {notes}; echo noted', args="text")
    agent = Gated()
    config = Config(session=SessionConfig(busy=busy), quick_commands=quick(note))
    with trio.fail_after(PATIENCE):
        async with open_gateway(config, agent=agent) as lab:
            client, chat = await lab.acp(), await lab.chat()
            session, turn = await begin(client)
            await chat.send("long")
            await agent.until_held(2)
            if drained:
                lab.gateway.drain("operator")
            result = await client.prompt(session, "/note buy milk")
            assert result["_meta"]["gateway-trio"]["exitCode"] == 0
            await client.prompt(session, "/NOTE buy eggs", onBusy="interrupt")
            await chat.send("/note buy tea")
            await chat.until("noted")
            assert notes.read_text() == "buy milk\nbuy eggs\nbuy tea\n", "each ran once"
            assert lab.gateway.status()["turns"] == 2, "the turns are untouched"
            lab.gateway.undrain()
            agent.gate.set()
            assert await client.answer(turn) == {"stopReason": "end_turn"}
            assert client.text().replace("noted\n", "") == "begun done"
            await chat.until("begun done")
            assert await client.prompt(session, "what did I say?") == {"stopReason": "end_turn"}
            await chat.websocket.aclose()
    assert [item.text for item in agent.turns[-1].history] == ["long", "begun done"]
    assert not any("buy" in text or "noted" in text for text in agent.seen())


@pytest.mark.parametrize("reason", REASONS)
async def test_case_04_each_kind_of_prompt_while_draining(reason):
    agent = Gated()
    commands = quick(
        ExecCommand("hello", command="echo world"),
        AliasCommand("hi", "/hello"),
        AliasCommand("s", "/status"),
    )
    with trio.fail_after(PATIENCE):
        async with open_gateway(Config(quick_commands=commands), agent=agent) as lab:
            client, chat = await lab.acp(), await lab.chat("other")
            session, turn = await begin(client)
            lab.gateway.drain(reason)
            await chat.until("· draining")
            frames = len(client.frames)
            # An unknown command gets the notice that it always gets.
            assert await client.prompt(session, "/helo") == {"stopReason": "end_turn"}
            await chat.send("/helo")
            assert (await chat.receive()).startswith("There is no command /helo. Did you mean /hello")
            # An alias is refused, though its target would run, and the refusal says what to type.
            for alias, target in (("/hi", "/hello"), ("/s", "/status")):
                error = await refusal(client, session, alias)
                assert (error.code, error.reason, error.data["admitted"]) == (-32010, "draining", False)
                assert f"Type {target} instead" in str(error)
                await chat.send(alias)
                assert f"Type {target} instead" in await chat.receive()
            with pytest.raises(AcpError) as caught:
                await client.call("_gateway-trio/exec", {"name": "hi", "args": []})
            assert caught.value.code == -32010
            # So is text.
            for text in ("hello there", "//hello", "/no/command", " /hello"):
                error = await refusal(client, session, text)
                assert (error.code, error.reason, error.data["admitted"]) == (-32010, "draining", False)
                assert error.data["reasons"] == [reason]
                assert error.data["retryable"]
                await chat.send(text)
                assert (await chat.receive()).startswith("The gateway is draining; nothing was sent to the agent")
            # And the exec itself runs.
            assert (await client.prompt(session, "/hello"))["stopReason"] == "end_turn"
            assert not any(f.get("result", {}).get("stopReason") == "refusal" for f in client.frames[frames:])
            await chat.websocket.aclose()
            agent.gate.set()
            assert await client.answer(turn) == {"stopReason": "end_turn"}
    assert agent.seen() == ["long"]
    assert prompts(lab.gateway) == ["long"]


@pytest.mark.parametrize("table", ['command = ""', 'command = "  "', "argv = []", 'argv = [""]', ""])
def test_case_04_an_empty_exec_is_a_config_error(table):
    with pytest.raises(ConfigError) as caught:
        parse_config(f'[quick_commands.empty]\ntype = "exec"\n{table}\n', environ={})
    assert [fault.path.startswith("quick_commands.empty") for fault in caught.value.faults] == [True]


ROADS = ["/retry", "/queue more", "/interrupt more", "/new", "/again", "/more", "/RETRY", "/Queue x", "/twice"]


@pytest.mark.parametrize("reason", REASONS)
async def test_case_06_and_07_no_other_road_leads_to_the_agent(reason, autojump_clock):
    agent = Gated()
    aliases = quick(
        AliasCommand("again", "/retry"),
        AliasCommand("more", "/queue more"),
        AliasCommand("twice", "/again"),
    )
    with trio.fail_after(PATIENCE):
        async with open_gateway(Config(quick_commands=aliases), agent=agent) as lab:
            client, chat = await lab.acp(), await lab.chat("done")
            await chat.send("earlier")
            assert await chat.receive() == "earlier"
            session, turn = await begin(client)
            lab.gateway.drain(reason)
            await chat.until("· draining")

            async def history():
                await chat.send("/history 50")
                return (
                    await chat.receive(),
                    [list(s.log) for s in lab.gateway.sessions],
                    [s.log.last for s in lab.gateway.sessions],
                )

            before = await history()
            for road in ROADS:
                for ours in ({}, {"onBusy": "interrupt"}):
                    error = await refusal(client, session, road, **ours)
                    assert (error.code, error.reason, error.data["admitted"]) == (-32010, "draining", False), road
                with pytest.raises(AcpError) as caught:
                    await client.call("_gateway-trio/exec", {"name": road[1:].split()[0], "args": []})
                assert caught.value.reason in ("draining", "usage")
                await chat.send(road)
                assert "draining" in await chat.receive()
                assert lab.gateway.status()["turns"] == agent.running == 1
            assert await history() == before, "unchanged to the byte"
            agent.gate.set()
            assert await client.answer(turn) == {"stopReason": "end_turn"}, "no /interrupt touched it"
    assert [turn.text for turn in agent.turns] == ["earlier", "long"]


@pytest.mark.parametrize("reason", REASONS)
async def test_case_13_ten_prompts_get_ten_refusals_and_one_notice(reason, autojump_clock):
    agent = Gated()
    with trio.fail_after(PATIENCE):
        async with open_gateway(agent=agent) as lab:
            client, chat = await lab.acp(), await lab.chat("other")
            session, _ = await begin(client)
            lab.gateway.drain(reason)
            ids = [await client.ask_prompt(session, f"prompt {n}") for n in range(10)]
            for id_ in ids:
                with pytest.raises(AcpError) as caught:
                    await client.answer(id_)
                assert caught.value.code == -32010
            for n in range(10):
                await chat.send(f"prompt {n}")
            said = []
            while len(said) < 11:
                said.append(await chat.receive())
            await chat.send("/whoami")
            assert (await chat.receive()).startswith("local"), "and nothing after it"
            notices = [text for text in said if text.startswith("· ")]
            assert len(notices) == 1
            assert notices[0].startswith(f"· draining ({reason})")
            phases = [f["params"]["phase"] for f in client.frames if f.get("method") == "_gateway-trio/phase"]
            assert phases == ["open", "draining"]
            agent.gate.set()


@pytest.mark.parametrize("reason", ["operator", "backend", "restart"])
async def test_case_16_a_refusal_is_no_attempt(reason, autojump_clock):
    agent = Gated()
    with trio.fail_after(PATIENCE):
        async with open_gateway(agent=agent) as lab:
            client = await lab.acp()
            session, turn = await begin(client)
            lab.gateway.drain(reason)
            for _ in range(20):
                assert (await refusal(client, session, "try", key="mine")).reason == "draining"
            assert lab.gateway.status()["turns"] == 1
            lab.gateway.undrain(reason if reason == "backend" else "operator")
            agent.gate.set()
            await client.answer(turn)
            # The key was not used up, and what is asked with it now may even be something else.
            assert await client.prompt(session, "try it", key="mine") == {"stopReason": "end_turn"}
            lab.gateway.drain("shutdown")
            await lab.gateway.closed.wait()
    report = lab.gateway.report
    assert [turn.text for turn in agent.turns] == ["long", "try it"]
    assert (report.turns_finished, report.turns_interrupted, report.turns_queued) == (0, 0, 0)
    assert prompts(lab.gateway) == ["long", "try it"]
    states = [e.body.state for s in lab.gateway.sessions for e in s.log if isinstance(e.body, Change)]
    assert states == ["queued", "running", "completed"] * 2


@pytest.mark.parametrize("road", ["chat", "acp"])
async def test_case_17_who_drained_can_be_seen_when_gone_and_any_admin_ends_it(road, autojump_clock):
    with trio.fail_after(PATIENCE):
        async with open_gateway() as lab:
            if road == "chat":
                gone = await lab.chat()
                await gone.send("/drain moving house")
                await gone.until("Draining")
            else:
                gone = await lab.acp()
                await gone.call("_gateway-trio/drain", {"why": "moving house"})
            await gone.websocket.aclose()
            chat, client = await lab.chat(), await lab.acp()
            assert (await chat.receive()).startswith("· draining (operator)")
            await chat.send("/status")
            said = await chat.receive()
            assert "draining because of operator, asked for by local at 20" in said
            assert said.endswith(": moving house")
            asked = (await client.call("_gateway-trio/status"))["asked"]["operator"]
            assert (asked["by"], asked["why"]) == ("local", "moving house")
            assert asked["at"] > 1_700_000_000
            json.dumps(dict(lab.gateway.status()))
            if road == "chat":
                assert (await client.call("_gateway-trio/undrain"))["phase"] == "open"
                assert await chat.receive() == "· open again"
            else:
                await chat.send("/undrain")
                assert {await chat.receive(), await chat.receive()} == {"· open again", "Open again."}
            await chat.send("hello")
            assert await chat.receive() == "hello"


@pytest.mark.parametrize("needs", [3, 9.99])
@pytest.mark.parametrize("reason", ["restart", "shutdown"])
async def test_case_12_a_turn_that_ends_within_the_grace_is_delivered(needs, reason, autojump_clock):
    agent = ScriptedAgent({"long": ["begun ", needs, "done"]})
    with trio.fail_after(PATIENCE):
        async with open_gateway(agent=agent) as lab:
            client, chat = await lab.acp(), await lab.chat()
            _, turn = await begin(client)
            await chat.send("long")
            await trio.testing.wait_all_tasks_blocked()
            start = trio.current_time()
            lab.gateway.drain(reason, grace_seconds=10)
            assert await client.answer(turn) == {"stopReason": "end_turn"}
            assert client.text() == "begun done"
            assert (await chat.until("begun"))[-1] == "begun done"
            assert await chat.close_code() == 1012
            await lab.gateway.closed.wait()
            assert trio.current_time() - start == pytest.approx(needs, abs=1e-6)
    assert (lab.gateway.report.turns_finished, lab.gateway.report.turns_interrupted) == (2, 0)
