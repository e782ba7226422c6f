"""Asking for permission, in memory and in virtual time: who is asked, who decides, and how a request ends."""

import json
import random

import pytest
import trio
from attrs import asdict

from gateway_trio.agents import AgentError, PermissionOption, Plan, TextDelta, ToolCall, Turn, TurnOver
from gateway_trio.config import AuthConfig, Config, DrainConfig, SessionConfig, TokenConfig
from gateway_trio.core.events import Change
from gateway_trio.core.jsonrpc import DEPTH, Request, parse
from gateway_trio.core.permission import Answered, Asked
from gateway_trio.desk import Prompted
from gateway_trio.emissions import UPDATE_BYTES
from gateway_trio.memory_store import MemoryStore
from gateway_trio.permissions import MOST_OPEN, decide
from gateway_trio.store import AddEvent
from gateway_trio.testing import STUCK, AskFor, FailingStore, ScriptedAgent
from memory import SlowListener, acp_lab, ours_of, states

DELETE = AskFor(ToolCall("c1", "Delete x", "delete", extra={"rawInput": {"path": "x"}, "_meta": {"mine": 1}}))
OPTIONS = (
    PermissionOption("y", "Yes", "allow_once"),
    PermissionOption("Y", "Always", "allow_always"),
    PermissionOption("n", "No", "reject_once"),
)
ALLOW = {"outcome": {"outcome": "selected", "optionId": "allow"}}


def asker(*steps):
    """An agent that says something, asks, and says what was decided."""

    async def say_it(_turn, emit):
        await emit(TextDelta("done" if agent.decisions[-1].allowed else "left"))

    agent = ScriptedAgent({"go": ["Let me. ", *(steps or (DELETE,)), say_it]})
    return agent


def requests(client):
    return [f for f in client.frames if f.get("method") == "session/request_permission"]


def cancelled_requests(client):
    return [f["params"]["requestId"] for f in client.frames if f.get("method") == "$/cancel_request"]


def permissions(client):
    """What a client was told by updates: (id, state, option, by)."""
    told = [p for frame in client.frames if (p := ours_of(frame).get("permission"))]
    return [(p["id"], p["state"], p.get("optionId"), p.get("by")) for p in told]


async def attach(lab, session, method="session/load", token=None, **ours):
    client = await lab.acp(token=token)
    meta = {"_meta": {"gateway-trio": ours}} if ours else {}
    await client.call(method, {"sessionId": session, "cwd": "/", "mcpServers": [], **meta})
    return client


async def no_more(client):
    """Wait until the client has everything that there was to send."""
    await client.call("_gateway-trio/status")
    await trio.testing.wait_all_tasks_blocked()


async def test_the_agent_is_told_what_was_chosen_and_events_say_so(autojump_clock):
    agent = asker()
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        id_ = await client.ask_prompt(session, "go")
        asked = await client.until_asked()
        params = asked["params"]
        assert params["sessionId"] == session
        assert params["options"] == [
            {"optionId": "allow", "name": "Allow", "kind": "allow_once"},
            {"optionId": "reject", "name": "Reject", "kind": "reject_once"},
        ]
        tool = params["toolCall"]
        assert (tool["toolCallId"], tool["title"], tool["kind"]) == ("c1", "Delete x", "delete")
        assert tool["rawInput"] == {"path": "x"}
        assert tool["_meta"]["mine"] == 1
        assert client.text() == "Let me. ", "the request closed the message"
        seq = tool["_meta"]["gateway-trio"]["seq"]
        await client.select(asked, "allow")
        assert (await client.answer(id_))["stopReason"] == "end_turn"
        assert client.text() == "Let me. done"
        (decision,) = agent.decisions
        assert (decision.outcome, decision.option.id, decision.by) == ("selected", "allow", "local")
        told = next(f for f in client.frames if "permission" in ours_of(f))
        assert ours_of(told)["seq"] == seq + 1
        assert permissions(client) == [(f"p{seq}", "selected", "allow", "local")]
        assert cancelled_requests(client) == []


async def test_rejecting_is_an_answer(autojump_clock):
    agent = asker(AskFor(ToolCall("c", "Do"), OPTIONS))
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        id_ = await client.ask_prompt(await client.new_session(), "go")
        await client.select(await client.until_asked(), "n")
        await client.answer(id_)
        assert agent.decisions[0].option == OPTIONS[2]
        assert client.text().endswith("left")


async def test_the_first_answer_wins_and_the_others_are_told(autojump_clock):
    agent = asker()
    async with acp_lab(agent=agent) as lab:
        one = await lab.acp()
        session = await one.new_session()
        two = await attach(lab, session)
        id_ = await one.ask_prompt(session, "go")
        first, second = await one.until_asked(), await two.until_asked()
        await two.select(second, "reject")
        await one.answer(id_)
        await one.select(first, "allow")  # too late
        await no_more(one)
        await no_more(two)
        assert [d.option.id for d in agent.decisions] == ["reject"]
        assert cancelled_requests(one) == [first["id"]]
        assert cancelled_requests(two) == []
        assert permissions(one) == permissions(two) == [(permissions(one)[0][0], "selected", "reject", "local")]


@pytest.mark.parametrize(
    "answer",
    [
        {"result": {"outcome": {"outcome": "cancelled"}}},
        {"error": {"code": -32601, "message": "method not found"}},
        {"error": {"code": -32601, "message": "no"}, "result": ALLOW},
        {"result": {"outcome": {"outcome": "selected", "optionId": "other"}}},
        {"result": {"outcome": "selected"}},
        {"result": None},
        {"result": [1]},
        {"result": "allow"},
    ],
)
async def test_what_is_no_choice_is_no_answer_and_somebody_else_may_still_answer(answer, autojump_clock):
    agent = asker()
    async with acp_lab(agent=agent) as lab:
        one = await lab.acp()
        session = await one.new_session()
        two = await attach(lab, session)
        id_ = await one.ask_prompt(session, "go")
        first, second = await one.until_asked(), await two.until_asked()
        await one.send({"jsonrpc": "2.0", "id": first["id"], **answer})
        await no_more(one)
        assert agent.decisions == []
        await one.reply(first["id"], ALLOW)  # answered already, and so to nothing
        await no_more(one)
        assert agent.decisions == []
        await two.select(second, "allow")
        await one.answer(id_)
        assert agent.decisions[0].allowed
        assert cancelled_requests(one) == [], "it has answered"


async def test_an_answer_to_what_was_never_asked_changes_nothing(autojump_clock):
    agent = asker()
    async with acp_lab(agent=agent) as lab:
        one, stranger = await lab.acp(), await lab.acp()
        session = await one.new_session()
        await one.ask_prompt(session, "go")
        asked = await one.until_asked()
        for id_ in (asked["id"], 0, -1, 99, "1", 1.5, None):
            await stranger.reply(id_, ALLOW)
        for id_ in (0, 1, asked["id"] + "0", asked["id"].upper(), None):
            await one.reply(id_, ALLOW)
        await no_more(stranger)
        await no_more(one)
        assert agent.decisions == []
        await one.select(asked, "allow")
        await one.until_state("completed")
        assert len(agent.decisions) == 1


async def test_only_the_owner_and_admins_are_asked_and_may_answer(autojump_clock):
    tokens = [TokenConfig(name, role, env=f"T_{name}") for name, role in (("ann", "user"), ("bob", "user"))]
    agent = asker()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ann", "bob", "root"):
            patch.setenv(f"T_{name}", f"the-token-of-{name}-012345")
        from gateway_trio.core.kinds import Role

        tokens = tuple(
            TokenConfig(name, role, env=f"T_{name}")
            for name, role in (("ann", Role.USER), ("bob", Role.USER), ("root", Role.ADMIN))
        )
        async with acp_lab(Config(auth=AuthConfig(tokens=tokens)), agent=agent) as lab:
            ann = await lab.acp(token="the-token-of-ann-012345")
            bob = await lab.acp(token="the-token-of-bob-012345")
            session = await ann.new_session()
            id_ = await ann.ask_prompt(session, "go")
            asked = await ann.until_asked()
            with pytest.raises(Exception, match="no session"):
                await bob.call("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
            await bob.reply(asked["id"], ALLOW)
            bobs = await bob.new_session()
            await bob.prompt(
                bobs, "/allow " + asked["params"]["toolCall"]["_meta"]["gateway-trio"]["permissionId"]
            )
            assert bob.text() == "Nothing asks for permission in this session."
            assert agent.decisions == []
            root = await attach(lab, session, token="the-token-of-root-012345")
            await root.select(await root.until_asked(), "allow")
            await ann.answer(id_)
            assert agent.decisions[0].by == "root"


@pytest.mark.parametrize("method", ["session/load", "session/resume"])
async def test_attaching_shows_open_ones_and_not_those_that_were_answered(method, autojump_clock):
    agent = ScriptedAgent({"go": [DELETE, AskFor(ToolCall("c2", "Delete y"))]})
    async with acp_lab(agent=agent) as lab:
        one = await lab.acp()
        session = await one.new_session()
        id_ = await one.ask_prompt(session, "go")
        await one.select(await one.until_asked(), "allow")
        second = await one.until_asked(2)
        two = await attach(lab, session, method)
        shown = await two.until_asked()
        await no_more(two)
        assert [f["params"]["toolCall"]["title"] for f in requests(two)] == ["Delete y"]
        assert shown["params"] == second["params"]
        states = [state for _, state, _, _ in permissions(two)]
        assert states == (["asked", "selected"] if method == "session/load" else [])
        await two.select(shown, "allow")
        await one.answer(id_)
        assert [d.allowed for d in agent.decisions] == [True, True]


async def test_resuming_behind_it_shows_it_and_resuming_before_it_shows_it_once(autojump_clock):
    async with acp_lab(agent=asker()) as lab:
        one = await lab.acp()
        session = await one.new_session()
        await one.ask_prompt(session, "go")
        seq = (await one.until_asked())["params"]["toolCall"]["_meta"]["gateway-trio"]["seq"]
        for after in (0, seq - 1, seq):
            two = await attach(lab, session, "session/resume", after=after)
            await two.until_asked()
            await no_more(two)
            assert len(requests(two)) == 1, after


async def test_attaching_again_on_the_same_connection_replaces_the_request(autojump_clock):
    agent = asker()
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        id_ = await client.ask_prompt(session, "go")
        first = await client.until_asked()
        for method in ("session/load", "session/resume"):
            await client.call(method, {"sessionId": session, "cwd": "/", "mcpServers": []})
            await no_more(client)
        ids = [f["id"] for f in requests(client)]
        assert len(ids) == len(set(ids)) == 3
        assert cancelled_requests(client) == ids[:2]
        await client.select(first, "reject")  # that one is cancelled
        await no_more(client)
        assert agent.decisions == []
        await client.select(requests(client)[-1], "allow")
        await client.answer(id_)
        assert agent.decisions[0].allowed


async def test_an_end_that_the_cursor_does_not_show_still_ends_the_request(autojump_clock):
    """A client that takes nothing for a while resumes behind the answer: no event tells it."""
    listener, agent = SlowListener(), asker()
    async with acp_lab(agent=agent, listener=listener) as lab:
        client, other = await lab.acp(), await lab.acp()
        session = await client.new_session()
        await other.call("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
        id_ = await client.ask_prompt(session, "go")
        asked, also = await client.until_asked(), await other.until_asked()
        listener.stop()
        await client.ask("_gateway-trio/status")  # its writer stands in this answer
        await trio.testing.wait_all_tasks_blocked()
        await other.select(also, "allow")
        await trio.testing.wait_all_tasks_blocked()
        await client.ask("session/resume", {"sessionId": session, "cwd": "/"})
        await trio.testing.wait_all_tasks_blocked()
        listener.go()
        await client.answer(id_)
        await no_more(client)
        assert permissions(client) == []
        assert cancelled_requests(client) == [asked["id"]]


async def test_a_chat_that_was_slow_is_not_asked_what_is_answered(autojump_clock):
    listener = SlowListener()
    async with acp_lab(agent=asker(), listener=listener) as lab:
        one, two = await lab.chat(), await lab.chat()
        listener.stop()
        await one.send("/whoami")  # its writer stands in this answer
        await trio.testing.wait_all_tasks_blocked()
        await two.send("go")
        await trio.testing.wait_all_tasks_blocked()
        await two.send("/allow")
        await trio.testing.wait_all_tasks_blocked()
        listener.go()
        frames = await one.until("done")
        assert [f for f in frames if f.startswith("· ")] == ["· p5 was answered by local: Allow"]


# --- how it lapses ----------------------------------------------------------------------------------


async def gone(client):
    await client.websocket.aclose()
    await trio.testing.wait_all_tasks_blocked()


async def test_it_lapses_so_long_after_the_last_client_has_gone(autojump_clock):
    agent = asker()
    config = Config(session=SessionConfig(permission_seconds=50, turn_idle_seconds=10, turn_seconds=100_000))
    async with acp_lab(config, agent=agent, limit=10_000) as lab:
        one = await lab.acp()
        session = await one.new_session()
        two = await attach(lab, session)
        await one.ask_prompt(session, "go")
        await one.until_asked()
        await trio.sleep(1003)  # somebody is there, and waiting for them is not idle
        await gone(two)
        await trio.sleep(1003)
        await gone(one)
        await trio.sleep(49)
        three = await attach(lab, session)  # the time begins anew
        await three.until_asked()
        await gone(three)
        await trio.sleep(49)
        assert agent.decisions == []
        await trio.sleep(1.5)
        assert [d.outcome for d in agent.decisions] == ["lapsed"]
        late = await attach(lab, session)
        assert requests(late) == []
        assert [p[1:] for p in permissions(late)] == [("asked", None, None), ("lapsed", None, None)]
        assert late.text().endswith("left"), "the turn went on"
        assert states(late)[-1] == "completed"


async def test_one_that_is_asked_when_nobody_is_there_lapses_too(autojump_clock):
    agent = ScriptedAgent({"go": [5.0, DELETE]})
    async with acp_lab(Config(session=SessionConfig(permission_seconds=50)), agent=agent, limit=10_000) as lab:
        one = await lab.acp()
        session = await one.new_session()
        await one.ask_prompt(session, "go")
        await one.until_state("running")
        await gone(one)
        await trio.sleep(54)
        assert agent.decisions == []
        await trio.sleep(2)
        assert agent.decisions[0].outcome == "lapsed"


async def test_the_idle_limit_counts_again_from_the_answer(autojump_clock):
    agent = ScriptedAgent({"go": [DELETE, 1000.0]})
    config = Config(session=SessionConfig(turn_idle_seconds=10))
    async with acp_lab(config, agent=agent, limit=10_000) as lab:
        client = await lab.acp()
        id_ = await client.ask_prompt(await client.new_session(), "go")
        asked = await client.until_asked()
        await trio.sleep(500)
        await client.select(asked, "allow")
        start = trio.current_time()
        with pytest.raises(Exception, match="said nothing for too long"):
            await client.answer(id_)
        assert trio.current_time() - start == pytest.approx(10, abs=0.1)


async def test_the_turns_own_limit_holds_while_it_waits(autojump_clock):
    config = Config(session=SessionConfig(turn_idle_seconds=10, turn_seconds=60))
    async with acp_lab(config, agent=asker(), limit=10_000) as lab:
        client = await lab.acp()
        id_ = await client.ask_prompt(await client.new_session(), "go")
        asked = await client.until_asked()
        with pytest.raises(Exception, match="too long"):
            await client.answer(id_)
        assert trio.current_time() == pytest.approx(60, abs=1)
        assert cancelled_requests(client) == [asked["id"]]


# --- how it is cancelled ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cancel", "cancel_request", "stop", "close", "interrupt", "drain"])
async def test_whatever_ends_the_turn_ends_the_request(how, autojump_clock):
    agent = asker()
    config = Config(drain=DrainConfig(grace_seconds=3))
    async with acp_lab(config, agent=agent) as lab:
        client, other = await lab.acp(), await lab.acp()
        session = await client.new_session()
        await other.call("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
        id_ = await client.ask_prompt(session, "go")
        asked, also = await client.until_asked(), await other.until_asked()
        match how:
            case "cancel":
                await client.notify("session/cancel", {"sessionId": session})
            case "cancel_request":
                await client.notify("$/cancel_request", {"requestId": id_})
            case "stop":
                await client.prompt(session, "/stop")
            case "close":
                await client.call("session/close", {"sessionId": session})
            case "interrupt":
                await client.ask_prompt(session, "next", onBusy="interrupt")
            case "drain":
                lab.gateway.drain("shutdown", by="a test")
        end = await client.until(lambda f: f.get("id") == id_ and "method" not in f)
        assert end.get("result", {}).get("stopReason") == (None if how == "drain" else "cancelled")
        await other.until(lambda f: f.get("method") == "$/cancel_request")
        assert cancelled_requests(client) == [asked["id"]]
        assert cancelled_requests(other) == [also["id"]]
        assert [p[1] for p in permissions(client)] == ["cancelled"]
        assert agent.decisions == [], "its task was cancelled"
        at = client.place(lambda f: "permission" in ours_of(f))
        # In a drain a notice of the phase may come between.
        after = next(ours_of(frame) for frame in client.frames[at + 1 :] if ours_of(frame))
        assert after["turn"]["state"] == ("interrupted" if how == "drain" else "cancelled")


async def test_in_a_drain_it_may_still_be_answered(autojump_clock):
    agent = asker()
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        id_ = await client.ask_prompt(session, "go")
        await client.until_asked()
        lab.gateway.drain("shutdown", by="a test", grace_seconds=30)
        await client.prompt(session, "/allow")
        assert (await client.answer(id_))["stopReason"] == "end_turn"
        assert agent.decisions[0].allowed


async def test_an_agent_that_gives_up_its_request_ends_it_for_everyone(autojump_clock):
    async def impatient(turn, emit):
        with trio.move_on_after(7) as patience:
            await turn.ask_permission(ToolCall("c", "Do"))
        assert patience.cancelled_caught
        await emit(TextDelta("never mind"))

    async with acp_lab(agent=ScriptedAgent({"go": [impatient]})) as lab:
        client = await lab.acp()
        id_ = await client.ask_prompt(await client.new_session(), "go")
        asked = await client.until_asked()
        await client.answer(id_)
        assert cancelled_requests(client) == [asked["id"]]
        assert [p[1] for p in permissions(client)] == ["cancelled"]
        assert client.text() == "never mind"


async def test_an_agent_that_shields_itself_is_told_cancelled_and_may_ask_no_more(autojump_clock):
    told = []

    async def stubborn(turn, _emit):
        with trio.CancelScope(shield=True):
            told.append((await turn.ask_permission(ToolCall("c", "Do"))).outcome)
            told.append((await turn.ask_permission(ToolCall("d", "Do more"))).outcome)
            await trio.sleep(100)
            with pytest.raises(TurnOver):
                await turn.ask_permission(ToolCall("e", "Do all"))
            told.append("over")

    async with acp_lab(agent=ScriptedAgent({"go": [stubborn]}), limit=1000) as lab:
        client = await lab.acp()
        session = await client.new_session()
        id_ = await client.ask_prompt(session, "go")
        asked = await client.until_asked()
        await client.notify("session/cancel", {"sessionId": session})
        assert (await client.answer(id_))["stopReason"] == "cancelled"
        await trio.sleep(200)
        assert told == ["cancelled", "cancelled", "over"]
        assert [p[1] for p in permissions(client)] == ["cancelled"]
        assert [f["id"] for f in requests(client)] == [asked["id"]], "nobody was asked for a cancelled turn"


async def test_a_request_that_outlives_its_agent_ends_with_the_turn(autojump_clock):
    told = []

    async def leave_it_behind(turn, _emit):
        async def ask():
            told.append((await turn.ask_permission(ToolCall("c", "Do"))).outcome)

        lab.nursery.start_soon(ask)
        await trio.sleep(1)

    async with acp_lab(agent=ScriptedAgent({"go": [leave_it_behind]})) as lab:
        client = await lab.acp()
        session = await client.new_session()
        id_ = await client.ask_prompt(session, "go", key="k")
        asked = await client.until_asked()
        assert (await client.answer(id_))["stopReason"] == "end_turn"
        await no_more(client)
        assert told == ["cancelled"]
        assert cancelled_requests(client) == [asked["id"]]
        assert [p[1] for p in permissions(client)] == ["cancelled"]
        at = client.place(lambda f: "permission" in ours_of(f))
        assert ours_of(client.frames[at + 1])["turn"]["state"] == "completed"
        kept = lab.gateway.sessions.find(session)
        assert kept.joined("k").ended_at == kept.log.last
        assert kept.requests == {}


async def test_an_answer_is_stored_even_where_its_task_is_cancelled(autojump_clock):
    class Noting(MemoryStore):
        noted = ()

        async def commit(self, changes):
            await trio.lowlevel.checkpoint()
            await super().commit(changes)
            self.noted += tuple(c.body for c in changes if isinstance(c, AddEvent))

    store = Noting()
    async with acp_lab(agent=asker(), store=store) as lab:
        client = await lab.acp()
        session = await client.new_session()
        id_ = await client.ask_prompt(session, "go")
        await client.until_asked()
        await client.notify("session/cancel", {"sessionId": session})
        await client.answer(id_)
        assert [body.decision.outcome for body in store.noted if isinstance(body, Answered)] == ["cancelled"]


# --- the store, bounds, faults of agents --------------------------------------------------------------


async def test_where_the_store_fails_nobody_is_asked(autojump_clock):
    store = FailingStore()

    async def ask(turn, _emit):
        store.failing = True
        try:
            await turn.ask_permission(ToolCall("c", "Do"))
        finally:
            store.failing = False

    async with acp_lab(agent=ScriptedAgent({"go": [ask]}), store=store) as lab:
        client = await lab.acp()
        session = await client.new_session()
        with pytest.raises(Exception, match="permission request could not be stored"):
            await client.prompt(session, "go")
        assert requests(client) == []


@pytest.mark.parametrize("how", ["fails", "stalls"])
async def test_an_answer_counts_even_where_the_store_will_not_take_it(how, autojump_clock):
    store, agent = FailingStore(), asker()
    async with acp_lab(agent=agent, store=store) as lab:
        client = await lab.acp()
        session = await client.new_session()
        await client.ask_prompt(session, "go")
        asked = await client.until_asked()
        store.failing = True
        if how == "stalls":
            store.stall()
        await client.select(asked, "allow")
        if how == "stalls":
            await client.prompt(session, "/deny")
            assert client.text().endswith("Nothing asks for permission in this session."), "it is decided"
        await client.until(lambda f: ours_of(f).get("permission", {}).get("state") == "selected")
        store.failing = False
        store.go()
        assert agent.decisions == [] or agent.decisions[0].allowed
        await client.until(lambda f: ours_of(f).get("turn", {}).get("state") in ("completed", "failed"))
        assert agent.decisions[0].allowed


async def test_at_most_so_many_are_open_and_a_further_one_waits(autojump_clock):
    most = MOST_OPEN
    titles = []

    async def ask_all(turn, _emit):
        async def ask(number):
            await turn.ask_permission(ToolCall(f"c{number}", f"Do {number}"))
            titles.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(most + 3):
                nursery.start_soon(ask, number)

    async with acp_lab(agent=ScriptedAgent({"go": [ask_all]})) as lab:
        client = await lab.acp()
        session = await client.new_session()
        id_ = await client.ask_prompt(session, "go")
        await client.until_asked(most)
        await no_more(client)
        assert len(requests(client)) == len(lab.gateway.sessions.find(session).requests) == most
        for nth in range(1, most + 4):
            await client.select(await client.until_asked(nth), "allow")
        await client.answer(id_)
        assert sorted(titles) == list(range(most + 3))


def nested(depth):
    value = "x"
    for _ in range(depth):
        value = [value]
    return value


async def test_the_deepest_request_that_is_taken_is_read_by_our_own_client(autojump_clock):
    deep = AskFor(ToolCall("c", "x", extra={"rawInput": nested(DEPTH - 3)}))
    async with acp_lab(agent=asker(deep)) as lab:
        client = await lab.acp()
        await client.ask_prompt(await client.new_session(), "go")
        asked = await client.until_asked()
        assert isinstance(parse(json.dumps(asked)), Request)
        await client.select(asked, "allow")
        await client.until_state("completed")


async def test_what_is_stored_with_a_meta_that_is_no_object_is_asked_all_the_same(autojump_clock):
    """Such a request was taken once: a session that holds one is read like any other."""
    async with acp_lab(agent=asker()) as lab:
        client = await lab.acp()
        session = await client.new_session()
        await client.ask_prompt(session, "go")
        await client.until_asked()
        for entry in lab.gateway.sessions.find(session).log:
            if isinstance(entry.body, Asked):
                entry.body.tool["_meta"] = 5
        late = await attach(lab, session)
        await late.select(await late.until_asked(), "allow")
        await late.until_state("completed")


@pytest.mark.parametrize(
    ("tool", "options", "error"),
    [
        (Plan(()), OPTIONS, TypeError),
        ("Delete", OPTIONS, TypeError),
        (ToolCall("c", "x", extra={"rawInput": float("nan")}), OPTIONS, TypeError),
        (ToolCall("c", "x", extra={"_meta": 5}), OPTIONS, TypeError),
        (ToolCall("c", "x", extra={"_meta": [1]}), OPTIONS, TypeError),
        (ToolCall("c", "x", extra={"rawInput": nested(DEPTH - 2)}), OPTIONS, TypeError),
        (ToolCall("c", "x"), (), ValueError),
        (ToolCall("c", "x"), (PermissionOption("o", None, "allow_once"),), TypeError),
        (ToolCall("c", "x"), (PermissionOption(5, "x", "allow_once"),), TypeError),
        (ToolCall("c", "x"), ({"id": "o"},), TypeError),
        (ToolCall("c", "x"), OPTIONS + OPTIONS, ValueError),
        (ToolCall("c", "x"), [PermissionOption(id_, "x", "allow_once") for id_ in "\ud83d\ud83e"], ValueError),
        (ToolCall("c", "x" * 300_000), OPTIONS, AgentError),
        (ToolCall("c", "x"), (PermissionOption("o", "é" * 50_000, "allow_once"),), AgentError),
    ],
)
async def test_a_request_that_is_none_is_the_agents_fault_at_once(tool, options, error, autojump_clock):
    seen = []

    async def ask(turn, _emit):
        with pytest.raises(error):
            await turn.ask_permission(tool, options)
        seen.append(True)

    async with acp_lab(agent=ScriptedAgent({"go": [ask]})) as lab:
        client = await lab.acp()
        await client.prompt(await client.new_session(), "go")
        assert seen
        assert requests(client) == []


async def test_a_client_gets_no_half_characters(autojump_clock):
    options = (PermissionOption("o", "y\ud800", "allow_once"),)
    agent = asker(AskFor(ToolCall("c", "a\ud800b"), options))
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        await client.ask_prompt(await client.new_session(), "go")
        asked = await client.until_asked()
        assert asked["params"]["toolCall"]["title"] == "a\ufffdb"
        assert asked["params"]["options"][0]["name"] == "y\ufffd"
        await client.select(asked, "o")
        await client.until_state("completed")


async def test_a_turn_made_by_hand_has_nobody_to_ask():
    turn = Turn("s", "t", "x", (), (), "p", trio.Event(), trio.CapacityLimiter(1))
    decision = await turn.ask_permission(ToolCall("c", "Do"))
    assert (decision.outcome, decision.allowed) == ("lapsed", False)


# --- what people type -------------------------------------------------------------------------------


async def test_over_chat_a_notice_asks_and_commands_answer(autojump_clock):
    agent = asker()
    async with acp_lab(agent=agent) as lab:
        one, two = await lab.chat(), await lab.chat()
        await one.send("go")
        frames = await one.until("· the agent asks")
        assert frames[0] == "Let me. "
        assert frames[-1] == "· the agent asks: Delete x (/allow p5, /deny p5)"
        assert (await two.until("the agent asks"))[-1] == frames[-1]
        await two.send("/deny p5")
        assert (await two.until("Denied p5: Delete x (Reject)."))[-1] == "Denied p5: Delete x (Reject)."
        for client in (one, two):
            assert (await client.until("left"))[0] == "· p5 was answered by local: Reject"
        await one.send("/allow p5")
        assert await one.receive() == "Nothing asks for permission in this session."
        assert not agent.decisions[0].allowed


async def test_over_chat_whoever_comes_sees_what_is_open(autojump_clock):
    async with acp_lab(agent=asker()) as lab:
        one = await lab.chat()
        await one.send("go")
        await one.until("the agent asks")
        late = await lab.chat()
        assert "· the agent asks: Delete x (/allow p5, /deny p5)" in await late.until("the agent asks")
        await late.send("/allow")
        await one.until("done")
        after = await lab.chat()
        await after.send("/whoami")
        assert (await after.receive()).startswith("local"), "an answered one is not shown"


async def test_an_id_is_needed_where_several_are_open_and_words_choose_the_kind(autojump_clock):
    always = (PermissionOption("a", "Always", "allow_always"),)

    async def ask_two(turn, _emit):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(turn.ask_permission, ToolCall("c1", "Delete x"), OPTIONS)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(turn.ask_permission, ToolCall("c2", "Delete y"), always)

    async with acp_lab(agent=ScriptedAgent({"go": [ask_two]})) as lab:
        client, chat = await lab.acp(), None
        session = await client.new_session()
        id_ = await client.ask_prompt(session, "go")
        await client.until_asked(2)

        async def say(text):
            before = len(client.text())
            await client.prompt(session, text)
            return client.text()[before:]

        assert chat is None
        assert await say("/allow") == "Say which one: p4 (Delete x), p5 (Delete y)."
        assert await say("/allow p9") == "There is no open request p9; open: p4 (Delete x), p5 (Delete y)."
        assert await say("/deny P5") == "p5 offers no way to deny it."
        assert await say("/allow p4") == "Allowed p4: Delete x (Yes)."
        assert await say("/allow") == "Allowed p5: Delete y (Always)."
        await client.answer(id_)


async def test_stuck_agents_and_their_sessions_are_not_disturbed_by_the_commands(autojump_clock):
    agent = ScriptedAgent({"hang": [STUCK]})
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        await client.ask_prompt(session, "hang")
        await client.until_state("running")
        for command in ("/allow", "/deny", "/allow p1"):
            assert (await client.prompt(session, command))["stopReason"] == "end_turn"
        agent.release()


async def test_of_two_commands_at_the_same_instant_the_first_decides(autojump_clock):
    agent = asker()
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        id_ = await client.ask_prompt(session, "go")
        await client.until_asked()
        (sender,) = lab.gateway.connections
        prompted = Prompted(lab.gateway.sessions.find(session), "", sender)
        assert decide(prompted, "", allow=False) == "Denied p5: Delete x (Reject)."
        assert decide(prompted, "", allow=True) == "Nothing asks for permission in this session."
        await client.answer(id_)
        assert not agent.decisions[0].allowed


async def test_the_largest_request_that_is_taken_fits_in_a_frame(autojump_clock):
    def ask(length):
        return AskFor(ToolCall("c", "x" * length), OPTIONS)

    wire = {"toolCallId": "c", "title": "", "kind": "other", "status": "pending"}
    around = json.dumps({"toolCall": wire, "options": [asdict(option) for option in OPTIONS]})
    most = UPDATE_BYTES - len(around)
    agent = ScriptedAgent({"fits": [ask(most)], "too big": [ask(most + 1)]})
    async with acp_lab(agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        id_ = await client.ask_prompt(session, "fits")
        asked = await client.until_asked()  # each frame's size is checked at the end
        await client.select(asked, "y")
        await client.answer(id_)
        with pytest.raises(Exception, match="fits in no frame"):
            await client.prompt(session, "too big")


async def ask_three(turn, _emit):
    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(turn.ask_permission, ToolCall(f"c{number}", f"Do {number}"), OPTIONS)


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_clients_do_each_request_ends_once_and_everyone_learns_of_it(seed, autojump_clock):
    rng = random.Random(seed)
    config = Config(session=SessionConfig(permission_seconds=30))
    async with acp_lab(config, agent=ScriptedAgent({"go": [ask_three]}), limit=10_000) as lab:
        first = await lab.acp()
        session = await first.new_session()
        await first.ask_prompt(session, "go")
        await first.until_asked(3)
        here, all_of_them, answered = [first], [first], {id(first): set()}

        async def come():
            client = await attach(lab, session, rng.choice(["session/load", "session/resume"]))
            log = lab.gateway.sessions.find(session).log
            if any(isinstance(entry.body, Change) and entry.body.ends for entry in log):  # it is told of that, too
                await client.call("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
            here.append(client)
            all_of_them.append(client)
            answered[id(client)] = set()

        async def answer(client):
            open_ = [
                f for f in requests(client) if f["id"] not in {*answered[id(client)], *cancelled_requests(client)}
            ]
            if open_:
                frame = rng.choice(open_)
                answered[id(client)].add(frame["id"])
                outcome = rng.choice([*("yYn"), "other", None])
                selected = {"outcome": "selected", "optionId": outcome}
                await client.reply(frame["id"], {"outcome": selected if outcome else {"outcome": "cancelled"}})

        for _ in range(rng.randrange(12)):
            client = rng.choice(here) if here else None
            match rng.choice(["come", "answer", "answer", "command", "go", "wait", "late"]):
                case "come":
                    await come()
                case "answer" if client:
                    await answer(client)
                case "command" if client:
                    await client.ask_prompt(session, rng.choice(["/allow", "/deny", "/allow p5", "/deny p6"]))
                case "go" if client:
                    here.remove(client)
                    await client.websocket.aclose()
                case "wait":
                    await trio.sleep(rng.choice([1.1, 23.3]))
                case "late" if client:  # to what it was asked over another connection
                    earlier = [f["id"] for other in all_of_them if other is not client for f in requests(other)]
                    await client.reply(rng.choice([0, *earlier]), ALLOW)
        if not here:
            await come()
        await here[0].notify("session/cancel", {"sessionId": session})
        log = lab.gateway.sessions.find(session).log
        for client in here:
            await client.until(lambda f: ours_of(f).get("turn", {}).get("state") in ("completed", "cancelled"))
            await no_more(client)

        asked = [entry.body.id for entry in log if isinstance(entry.body, Asked)]
        ended = [entry.body.id for entry in log if isinstance(entry.body, Answered)]
        assert sorted(asked) == sorted(ended)
        assert len(asked) == 3
        assert not log.unanswered()
        for client in here:
            left = {f["id"] for f in requests(client)} - answered[id(client)] - set(cancelled_requests(client))
            assert left == set()
            assert len(cancelled_requests(client)) == len(set(cancelled_requests(client)))
