"""Who comes in, in memory and in virtual time: the limits before authentication and after it."""

from __future__ import annotations

import hashlib
import json

import pytest
import trio
import trio.testing
import trio_websocket

from gateway_trio.config import AuthConfig, Config, TokenConfig
from gateway_trio.connection import AUTHENTICATE_SECONDS, UNKNOWN_BYTES, UNKNOWN_MESSAGE_BYTES
from gateway_trio.core.jsonrpc import Problem
from gateway_trio.core.kinds import Role
from gateway_trio.core.phases import Phase
from gateway_trio.entrance import Entrance, neighbourhood
from gateway_trio.testing import AcpError, FailingStore, ScriptedAgent
from gateway_trio.tokens import Identity, Principal
from memory import acp_lab, refused

ADMIN, USER, OTHER = "admin-token-01234", "user-token-012345", "other-token-01234"


def token(name, role, secret):
    return TokenConfig(name, role, sha256=hashlib.sha256(secret.encode()).hexdigest())


TOKENS = (token("root", Role.ADMIN, ADMIN), token("ann", Role.USER, USER), token("bob", Role.USER, OTHER))


def config(**limits):
    return Config(auth=AuthConfig(TOKENS, **limits))


async def authenticate(client, secret, method="token"):
    params = {"methodId": method, "_meta": {"gateway-trio": {"token": secret}}}
    return await client.call("authenticate", params)


async def answer(lab, path, secret=None) -> bytes:
    """Return the head of the answer to a request for a WebSocket; the connection stays open."""
    stream = await lab.listener.connect()
    authorization = "" if secret is None else f"Authorization: Bearer {secret}\r\n"
    await stream.send_all(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{authorization}"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    got = b""
    while b"\r\n\r\n" not in got:
        got += await stream.receive_some()
    return got


# --- the entrance by itself -------------------------------------------------------------------------


async def test_beyond_so_many_bad_tokens_of_an_address_the_rest_is_limited_and_a_good_one_enters(autojump_clock):
    entrance = Entrance(AuthConfig(TOKENS, failures=3, failure_window_seconds=60), {})
    for bad in ("x", "", None):
        assert entrance.check(bad, "10.0.0.1").reason == "auth_required"
    limited = entrance.check("x", "10.0.0.1")
    assert (limited.reason, limited.retry_after_ms) == ("rate_limited", 20_000)
    assert entrance.check(USER, "10.0.0.1").principal == Principal("ann", Role.USER)
    assert entrance.check("x", "10.0.0.2").reason == "auth_required"
    await trio.sleep(20)
    assert entrance.check("x", "10.0.0.1").reason == "auth_required"
    assert entrance.check("x", "10.0.0.1").reason == "rate_limited"


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("no address", "no address"),
    ],
)
def test_an_address_of_ipv6_is_counted_by_its_net(address, counted):
    assert neighbourhood(address) == counted


async def test_a_principal_has_so_many_connections_and_no_more():
    entrance = Entrance(AuthConfig(TOKENS, max_connections=2), {})
    ann = entrance.check(USER, "a")
    assert isinstance(ann, Identity)
    entrance.arrive(ann)
    entrance.arrive(ann)
    limited = entrance.check(USER, "a")
    assert isinstance(limited, Problem)
    assert limited.reason == "rate_limited"
    assert isinstance(entrance.check(OTHER, "a"), Identity)
    entrance.leave(ann)
    assert entrance.check(USER, "a") == ann


async def test_without_tokens_nothing_limits_anyone():
    entrance = Entrance(AuthConfig(prompts_per_minute=1), {})
    local = entrance.anyone()
    assert local.principal == Principal("local", Role.ADMIN)
    assert [entrance.spend_prompt(local.principal) for _ in range(10)] == [None] * 10


# --- authenticate over ACP --------------------------------------------------------------------------


async def test_initialize_offers_the_token_and_everything_else_waits_for_it(autojump_clock):
    async with acp_lab(config()) as lab:
        client = await lab.connect()
        assert (await refused(client, "authenticate", {"methodId": "token"})).reason == "not_initialized"
        offered = (await client.initialize())["authMethods"]
        assert [method["id"] for method in offered] == ["token"]
        for method in (
            "session/new", "session/load", "session/resume", "session/list", "session/close", "session/prompt",
            "_gateway-trio/status", "_gateway-trio/exec", "_gateway-trio/kill", "_gateway-trio/drain",
            "_gateway-trio/undrain", "_gateway-trio/restart", "no/such/method",
        ):  # fmt: skip
            error = await refused(client, method, {"sessionId": "s", "cwd": "/", "mcpServers": [], "prompt": []})
            assert (error.code, error.reason) == (-32000, "auth_required"), method
        await client.notify("session/cancel", {"sessionId": "s"})
        assert client.phases() == [], "nothing is told to somebody unknown"
        lab.gateway.drain()
        lab.gateway.undrain()
        assert await authenticate(client, USER) == {}
        await client.until(lambda f: f.get("method") == "_gateway-trio/phase")
        session = await client.new_session()
        await client.prompt(session, "/whoami")
        assert client.text().startswith("ann, role user")


async def test_a_header_does_it_too_and_then_nothing_is_offered(autojump_clock):
    async with acp_lab(config()) as lab:
        client = await lab.connect(token=ADMIN)
        assert (await client.initialize())["authMethods"] == []
        with pytest.raises(AcpError) as again:
            await authenticate(client, USER)
        assert again.value.code == -32602
        session = await client.new_session()
        await client.prompt(session, "/whoami")
        assert client.text().startswith("root, role admin")
        chat = await lab.chat(token=USER)
        await chat.send("/whoami")
        assert (await chat.receive()).startswith("ann, role user")


@pytest.mark.parametrize(
    "bad", ["", "é", "x", USER + " ", USER.upper(), None, 3, ["x"], {"a": 1}, "x" * 10_000, "\0"]
)
async def test_what_is_no_token_is_refused_and_the_next_may_be_one(autojump_clock, bad):
    async with acp_lab(config()) as lab:
        client = await lab.connect()
        await client.initialize()
        with pytest.raises(AcpError) as refusal:
            await authenticate(client, bad)
        assert (refusal.value.code, refusal.value.reason) == (-32000, "auth_required")
        with pytest.raises(AcpError) as refusal:
            await authenticate(client, USER, method="oauth")
        assert refusal.value.code == -32602
        await authenticate(client, USER)
        await client.new_session()


async def test_bad_tokens_over_acp_are_limited_with_the_time_to_wait(autojump_clock):
    async with acp_lab(config(failures=2)) as lab:
        client = await lab.connect()
        await client.initialize()
        reasons = []
        for _ in range(4):
            with pytest.raises(AcpError) as refusal:
                await authenticate(client, "x")
            reasons.append(refusal.value.reason)
        assert reasons == ["auth_required"] * 2 + ["rate_limited"] * 2
        assert refusal.value.code == -32015
        assert refusal.value.data["retryAfterMs"] > 0
        await authenticate(client, USER)


async def test_nobody_may_stay_without_a_name(autojump_clock):
    async with acp_lab(config()) as lab:
        silent, speaks, known = await lab.connect(), await lab.connect(), await lab.connect()
        start = trio.current_time()
        await speaks.initialize()
        await known.initialize()
        await authenticate(known, USER)
        assert await silent.code() == await speaks.code() == 1008
        assert trio.current_time() - start == pytest.approx(AUTHENTICATE_SECONDS, abs=0.1)
        await trio.sleep(4 * AUTHENTICATE_SECONDS)
        await known.new_session()
        assert lab.gateway.entrance.waiting == 0


async def test_before_authentication_a_frame_is_small(autojump_clock):
    async with acp_lab(config()) as lab:
        client = await lab.connect()
        await client.initialize()
        with pytest.raises(AcpError):
            await authenticate(client, "x" * (UNKNOWN_MESSAGE_BYTES - 200))
        params = {"methodId": "token", "_meta": {"gateway-trio": {"token": "x" * UNKNOWN_MESSAGE_BYTES}}}
        await client.ask("authenticate", params)
        assert await client.code() == 1009
        known = await lab.acp(token=USER)
        session = await known.new_session()
        await known.prompt(session, "x" * 2 * UNKNOWN_BYTES)


async def test_before_authentication_not_much_is_taken_in_all(autojump_clock):
    """Also not in a frame that never ends: nothing of it is kept."""
    async with acp_lab(config()) as lab:
        client = await lab.connect()
        await client.send("x" * 10 * UNKNOWN_BYTES)
        assert await client.code() == 1009
        client = await lab.connect()
        await client.initialize()
        for _ in range(2 * UNKNOWN_BYTES // UNKNOWN_MESSAGE_BYTES):
            try:
                await client.send(json.dumps({"x": "y" * (UNKNOWN_MESSAGE_BYTES - 20)}))
            except trio_websocket.ConnectionClosed:
                break
        assert await client.code() == 1009


async def test_so_many_may_wait_to_authenticate_and_those_with_a_header_pass_them(autojump_clock):
    async with acp_lab(config(max_unauthenticated=3)) as lab:
        waiting = [await lab.connect() for _ in range(3)]
        assert b" 503 " in await answer(lab, "/acp")
        assert b" 401 " in await answer(lab, "/acp", "x"), "one that is refused needs no room"
        assert lab.gateway.entrance.waiting == 3
        await lab.acp(token=USER)
        await waiting[0].initialize()
        await authenticate(waiting[0], USER)
        await lab.connect()
        assert b" 503 " in await answer(lab, "/acp")


async def test_a_principal_that_has_all_its_connections_is_told_so(autojump_clock):
    async with acp_lab(config(max_connections=1)) as lab:
        first = await lab.acp(token=USER)
        refusal = await answer(lab, "/acp", USER)
        assert b" 429 " in refusal
        assert b"Retry-After: 5" in refusal
        late = await lab.connect()
        await late.initialize()
        with pytest.raises(AcpError) as limited:
            await authenticate(late, USER)
        assert limited.value.reason == "rate_limited"
        await first.websocket.aclose()
        await trio.testing.wait_all_tasks_blocked()
        await authenticate(late, USER)


# --- each principal ---------------------------------------------------------------------------------


async def test_prompts_a_minute_are_each_principals_own_and_commands_are_free(autojump_clock):
    agent = ScriptedAgent()
    async with acp_lab(config(prompts_per_minute=3), agent=agent) as lab:
        ann, bob = await lab.acp(token=USER), await lab.acp(token=OTHER)
        session, others = await ann.new_session(), await bob.new_session()
        for text in ("one", "/queue two", "/retry"):
            assert (await ann.prompt(session, text))["stopReason"] == "end_turn"
        for text in ("four", "/queue five", "/interrupt six", "/retry"):
            with pytest.raises(AcpError) as refusal:
                await ann.prompt(session, text)
            assert (refusal.value.code, refusal.value.reason) == (-32015, "rate_limited")
            assert refusal.value.data["admitted"] is False
            assert 0 < refusal.value.data["retryAfterMs"] <= 20_000
        again = await lab.acp(token=USER)
        with pytest.raises(AcpError, match="prompts in a minute"):
            await again.prompt(await again.new_session(), "by another connection")
        assert len(agent.turns) == 3
        for text in ("/status", "/help", "/stop", "/nonsense", "/history"):
            await ann.prompt(session, text)
        await bob.prompt(others, "mine")
        await trio.sleep(20)
        await ann.prompt(session, "four")
        assert len(agent.turns) == 5


async def test_the_log_says_whose_it_is_whoever_let_it_start(autojump_clock, caplog):
    agent = ScriptedAgent({"break": [ZeroDivisionError("broken")]})
    async with acp_lab(config(), agent=agent) as lab:
        ann, root = await lab.acp(token=USER), await lab.acp(token=ADMIN)
        await root.call(
            "session/resume", {"sessionId": (session := await ann.new_session()), "cwd": "/", "mcpServers": []}
        )
        async with trio.open_nursery() as nursery:
            agent.scripts["wait"] = [1]
            nursery.start_soon(root.prompt, session, "wait")
            await root.until_state("running")
            waits = await ann.ask_prompt(session, "break")
            await ann.until_state("queued")
        with pytest.raises(AcpError):
            await ann.answer(waits)
        (line,) = [record for record in caplog.records if "broken" in str(record.exc_info)]
        assert line.principal == "ann", "its turn was started by the end of the other's"


async def test_a_prompt_that_joins_an_earlier_one_or_comes_in_a_drain_costs_nothing(autojump_clock):
    async with acp_lab(config(prompts_per_minute=2)) as lab:
        ann = await lab.acp(token=USER)
        session = await ann.new_session()
        lab.gateway.drain()
        for _ in range(5):
            with pytest.raises(AcpError) as refusal:
                await ann.prompt(session, "hi")
            assert refusal.value.reason == "draining"
        lab.gateway.undrain()
        for _ in range(5):
            await ann.prompt(session, "hi", key="k")
        await ann.prompt(session, "the second")
        with pytest.raises(AcpError, match="prompts in a minute"):
            await ann.prompt(session, "the third")


async def test_a_principal_has_so_many_sessions_and_its_oldest_idle_one_makes_room(autojump_clock):
    async with acp_lab(config(max_sessions=2)) as lab:
        ann, bob = await lab.acp(token=USER), await lab.acp(token=OTHER)
        kept = await bob.new_session()
        first, second = await ann.new_session(), await ann.new_session()
        assert (await refused(ann, "session/new", {"cwd": "/", "mcpServers": []})).reason == "busy"
        await ann.call("session/close", {"sessionId": first})
        third = await ann.new_session()
        listed = [s["sessionId"] for s in (await ann.call("session/list"))["sessions"]]
        assert listed == [third, second]
        assert lab.gateway.sessions.find(kept) is not None
        await bob.new_session()


async def test_sessions_that_could_not_be_stored_are_not_counted(autojump_clock):
    store = FailingStore()
    async with acp_lab(config(max_sessions=1), store=store) as lab:
        ann = await lab.acp(token=USER)
        store.failing = True
        for _ in range(3):
            error = await refused(ann, "session/new", {"cwd": "/", "mcpServers": []})
            assert error.reason == "store_unavailable"
        store.failing = False
        await ann.new_session()


async def test_a_chat_session_is_each_principals_own(autojump_clock):
    async with acp_lab(config()) as lab:
        ann, bob = await lab.chat("plan", token=USER), await lab.chat("plan", token=OTHER)
        await ann.send("my secret plan")
        assert await ann.receive() == "my secret plan"
        await bob.send("/history")
        assert await bob.receive() == "Nothing was said yet."
        assert lab.gateway.phase is Phase.OPEN
