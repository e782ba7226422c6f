"""Another config while the gateway runs: what holds at once, what takes a restart, and who has to go."""

from __future__ import annotations

import hashlib
from functools import partial

import pytest
import trio
import trio.testing
from attrs import evolve

from gateway_trio.config import (
    AuthConfig,
    Config,
    ConfigError,
    EchoAgentConfig,
    ExecCommand,
    Fault,
    ServerConfig,
    SessionConfig,
    StoreConfig,
    TokenConfig,
)
from gateway_trio.core.kinds import Role
from gateway_trio.server import serve
from gateway_trio.testing import AcpError, FailingStore, ScriptedAgent
from memory import acp_lab

SECRETS = {"root": "root-token-01234", "ann": "ann-token-012345"}


def token(name, role=Role.USER, secret=None):
    secret = secret or SECRETS[name]
    return TokenConfig(name, role, sha256=hashlib.sha256(secret.encode()).hexdigest())


BOTH = Config(auth=AuthConfig((token("root", Role.ADMIN), token("ann"))))


def commands(client):
    return [
        {c["name"] for c in update["availableCommands"]} for update in client.updates("available_commands_update")
    ]


async def test_quick_commands_are_there_at_once_and_told(autojump_clock):
    new = evolve(
        BOTH,
        quick_commands={
            "up": ExecCommand("up", command="true", role=Role.USER),
            "down": ExecCommand("down", command="true"),
        },
    )
    async with acp_lab(BOTH) as lab:
        root, ann = await lab.acp(token=SECRETS["root"]), await lab.acp(token=SECRETS["ann"])
        nobody = await lab.connect()
        chat = await lab.chat(token=SECRETS["ann"])
        for client in (root, ann):
            await client.new_session()
            await client.new_session()
        assert lab.gateway.reload(new) == ()
        await root.until(lambda _: len(commands(root)) == 4)
        await ann.until(lambda _: len(commands(ann)) == 4)
        assert all({"up", "down"} <= names for names in commands(root)[2:])
        assert all("up" in names and "down" not in names for names in commands(ann)[2:])
        await chat.send("/commands")
        assert "/up" in await chat.receive()
        assert nobody.frames == []


async def test_a_token_that_is_gone_ends_its_connections_and_no_other(autojump_clock):
    agent = ScriptedAgent({"long": ["a", 20, "b"]})
    async with acp_lab(BOTH, agent=agent) as lab:
        root, ann = await lab.acp(token=SECRETS["root"]), await lab.acp(token=SECRETS["ann"])
        chat = await lab.chat(token=SECRETS["ann"])
        session = await ann.new_session()
        await ann.ask_prompt(session, "long")
        await ann.until_state("running")
        lab.gateway.reload(evolve(BOTH, auth=AuthConfig((token("root", Role.ADMIN),))))
        assert await ann.code() == await chat.close_code() == 4501
        assert ann.frames[-1]["params"] == {"code": 4501, "reconnectAfterMs": None}
        await root.call("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
        await root.until_state("completed")
        assert root.text() == "ab", "a lost socket cancels nothing"
        assert lab.gateway.entrance.tokens.find(SECRETS["ann"]) is None


@pytest.mark.parametrize(
    "then",
    [
        [token("root", Role.ADMIN), token("ann", Role.ADMIN)],  # another role
        [token("root", Role.ADMIN), token("ann", secret="another-token-1")],  # another token
        [token("root", Role.ADMIN), token("bob", secret=SECRETS["ann"])],  # another name
        [],  # everyone is local now, and ann is nobody
    ],
)
async def test_who_is_somebody_else_now_has_to_come_again(autojump_clock, then):
    async with acp_lab(BOTH) as lab:
        ann = await lab.acp(token=SECRETS["ann"])
        lab.gateway.reload(evolve(BOTH, auth=AuthConfig(tuple(then))))
        assert await ann.code() == 4501


async def test_the_first_tokens_end_what_had_none(autojump_clock):
    async with acp_lab(Config()) as lab:
        local = await lab.acp()
        lab.gateway.reload(BOTH)
        assert await local.code() == 4501
        await (await lab.acp(token=SECRETS["ann"])).new_session()


async def test_nothing_is_taken_from_a_connection_that_is_shown_out(autojump_clock):
    agent = ScriptedAgent()
    async with acp_lab(BOTH, agent=agent) as lab:
        ann = await lab.acp(token=SECRETS["ann"])
        session = await ann.new_session()
        lab.gateway.reload(evolve(BOTH, auth=AuthConfig((token("root", Role.ADMIN),))))
        await ann.ask_prompt(session, "one more")
        assert await ann.code() == 4501
        await trio.testing.wait_all_tasks_blocked()
        assert agent.turns == []


async def test_one_that_is_just_coming_in_by_a_token_that_goes_is_shown_out_too(autojump_clock):
    async with acp_lab(BOTH) as lab:
        clients = []

        async def come():
            clients.append(await lab.connect(token=SECRETS["ann"]))

        lab.nursery.start_soon(come)
        while not lab.gateway.coordinator.sockets:
            await trio.lowlevel.checkpoint()
        assert not lab.gateway.connections, "its token was taken, and it does not stand yet"
        lab.gateway.reload(evolve(BOTH, auth=AuthConfig((token("root", Role.ADMIN),))))
        await trio.testing.wait_all_tasks_blocked()
        assert await clients[0].code() == 4501


async def test_limits_hold_at_once_and_what_was_spent_counts_on(autojump_clock):
    def limited(prompts, queue):
        auth = evolve(BOTH.auth, prompts_per_minute=prompts)
        return evolve(BOTH, auth=auth, session=SessionConfig(queue_limit=queue, busy="refuse"))

    async with acp_lab(BOTH) as lab:
        ann = await lab.acp(token=SECRETS["ann"])
        session = await ann.new_session()
        await ann.prompt(session, "one")
        lab.gateway.reload(limited(2, 5))
        await ann.prompt(session, "two")
        with pytest.raises(AcpError, match="prompts in a minute"):
            await ann.prompt(session, "three")
        lab.gateway.reload(limited(100, 5))
        await ann.prompt(session, "three")
        assert lab.gateway.sessions.queue_limit == 5
        assert lab.gateway.turns.config.session.busy == "refuse"


async def test_a_connection_keeps_the_limit_of_messages_that_it_was_told(autojump_clock):
    async with acp_lab(Config()) as lab:
        before = await lab.acp()
        session = await before.new_session()
        lab.gateway.reload(Config(server=ServerConfig(max_message_bytes=2048)))
        await before.prompt(session, "x" * 3000)
        after = await lab.acp()
        session = await after.new_session()
        await after.ask_prompt(session, "x" * 3000)
        assert await after.code() == 1009


async def test_what_takes_a_restart_stays_and_is_named(autojump_clock):
    new = Config(
        server=ServerConfig("::1", 99, max_connections=5),
        agent=EchoAgentConfig(words_per_second=1),
        store=StoreConfig("memory"),
    )
    async with acp_lab(Config()) as lab:
        client = await lab.acp()
        assert lab.gateway.reload(new) == ("server.host", "server.port", "agent", "store")
        server = lab.gateway.config.server
        assert (server.host, server.port, server.max_connections) == ("127.0.0.1", 8765, 5)
        assert (lab.gateway.config.agent, lab.gateway.config.store) == (EchoAgentConfig(), StoreConfig())
        await client.new_session()


async def test_a_fault_changes_nothing(autojump_clock):
    bad = Config(auth=AuthConfig((TokenConfig("x", Role.USER, env="NO_SUCH_VARIABLE_HERE"),)))
    async with acp_lab(BOTH) as lab:
        ann = await lab.acp(token=SECRETS["ann"])
        with pytest.raises(ConfigError, match="NO_SUCH_VARIABLE_HERE"):
            lab.gateway.reload(bad)
        assert lab.gateway.config == BOTH
        await ann.new_session()


async def test_reload_by_command_tells_what_came_of_it(autojump_clock):
    answers = [BOTH, evolve(BOTH, agent=EchoAgentConfig(words_per_second=1))]
    fault = ConfigError((Fault("server.prot", "unknown key"), Fault("drain.grace_seconds", "must be …")))

    async def read_config():
        await trio.sleep(1)
        if not answers:
            raise fault
        return answers.pop(0)

    async with acp_lab(BOTH, read_config=read_config) as lab:
        root, ann = await lab.acp(token=SECRETS["root"]), await lab.acp(token=SECRETS["ann"])
        session = await root.new_session()
        first = await root.ask_prompt(session, "/reload")
        with pytest.raises(AcpError) as busy:
            await root.prompt(session, "/reload")
        assert busy.value.reason == "busy"
        await root.answer(first)
        assert root.text() == "Reloaded."
        await root.prompt(session, "/reload")
        assert root.text().endswith("At the next restart only: agent.")
        with pytest.raises(AcpError) as refusal:
            await root.prompt(session, "/reload")
        assert "server.prot: unknown key\ndrain.grace_seconds: must be" in str(refusal.value)
        with pytest.raises(AcpError) as refusal:
            await ann.prompt(await ann.new_session(), "/reload")
        assert refusal.value.reason == "forbidden"


async def test_without_a_file_reload_says_so(autojump_clock):
    async with acp_lab(Config()) as lab:
        client = await lab.acp()
        with pytest.raises(AcpError, match="no file"):
            await client.prompt(await client.new_session(), "/reload")


async def test_the_last_token_stays_while_others_can_reach_the_gateway():
    config = evolve(BOTH, server=ServerConfig("0.0.0.0", 0))
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            gateway = await nursery.start(partial(serve, config, agent=ScriptedAgent(), store=FailingStore()))
            with pytest.raises(ConfigError, match=r"auth.tokens: are required.*0\.0\.0\.0"):
                gateway.reload(evolve(config, auth=AuthConfig()))
            assert gateway.entrance.tokens
            gateway.drain("shutdown", grace_seconds=0)
