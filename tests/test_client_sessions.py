"""The client library's sessions: prompts, what is told of them, and how they come back. In memory, in virtual time."""

import json

import pytest
import trio
import trio.testing

from doors import Door
from gateway_trio.agents import Plan as AgentPlan
from gateway_trio.agents import ThoughtDelta, ToolCall, Usage
from gateway_trio.client import (
    Away,
    Back,
    Closed,
    Commands,
    Gap,
    Lost,
    Notice,
    Permission,
    PermissionOver,
    Plan,
    Refused,
    State,
    Text,
    Tool,
)
from gateway_trio.client import Usage as Used
from gateway_trio.client.outstanding import MOST_PROMPTS
from gateway_trio.core.jsonrpc import Notification, Request, Response, problem
from gateway_trio.store import StoreUnavailable
from gateway_trio.testing import FailingStore, ScriptedAgent


@pytest.fixture
async def door(nursery):
    with trio.fail_after(3000):
        yield Door(nursery)


async def follow(prompt):
    """Return all updates of a prompt."""
    return [update async for update in prompt]


def said(updates, kind="answer"):
    """Put the texts of a kind together."""
    texts = {}
    for update in updates:
        if isinstance(update, Text) and update.kind == kind:
            before = texts.get(update.seq, "")
            assert update.at <= len(before)
            texts[update.seq] = before[: update.at] + update.text
    return "".join(texts.values())


def states(updates):
    return [update.state for update in updates if isinstance(update, State)]


async def take_until(updates, test):
    """Return what comes up to the first that passes the test."""
    found = []
    async for update in updates:
        found.append(update)
        if test(update):
            return found
    raise AssertionError(f"it ended before that: {found}")


async def test_a_prompt_is_iterated_over_to_its_outcome(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve(agent=ScriptedAgent({"hi": ["hel", 1.0, "lo"]}))
        async with door.connect() as client:
            session = await client.new_session()
            prompt = session.prompt("hi")
            updates = await follow(prompt)
            assert states(updates) == ["queued", "running", "completed"]
            assert [u.text for u in updates if isinstance(u, Text)] == ["hel", "lo"]
            assert (prompt.outcome.state, prompt.outcome.stop_reason) == ("completed", "end_turn")
            assert (prompt.outcome.error, prompt.outcome.facts) == (None, None)
            assert await prompt.result() is prompt.outcome


async def test_every_kind_of_update(autojump_clock, door):
    agent = ScriptedAgent(
        {
            "hi": [
                ThoughtDelta("hm"),
                ToolCall("1", "look", "read"),
                AgentPlan([{"content": "a"}]),
                Usage(3, 9),
                "yes",
            ]
        }
    )
    with trio.fail_after(60):
        await door.serve(agent=agent)
        async with door.connect() as client:
            session = await client.new_session()
            everything = session.updates()
            mine = await follow(session.prompt("hi"))
            assert said(mine, "thought") == "hm"
            assert said(mine) == "yes"
            assert [(u.id, u.title) for u in mine if isinstance(u, Tool)] == [("1", "look")]
            assert [len(u.entries) for u in mine if isinstance(u, Plan)] == [1]
            all_of_it = await take_until(everything, lambda u: isinstance(u, Used))
            assert all_of_it[-1] == Used(3, 9)
            await trio.testing.wait_all_tasks_blocked()
            assert isinstance(session.commands, Commands)
            assert "status" in [command.name for command in session.commands.commands]


async def test_a_control_command_is_answered_with_a_notice(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            session = await client.new_session()
            first, second = session.prompt("/status"), session.prompt("/whoami")
            (status,) = await follow(first)
            (whoami,) = await follow(second)
            assert isinstance(status, Notice)
            assert status.text.startswith("phase open")
            assert "local" in whoami.text
            assert first.outcome.state == "completed"


async def test_prompts_run_in_the_order_in_which_they_were_sent(autojump_clock, door):
    agent = ScriptedAgent()
    with trio.fail_after(60):
        await door.serve(agent=agent)
        async with door.connect() as client:
            session = await client.new_session()
            for prompt in [session.prompt(f"p{n}") for n in range(8)]:
                assert (await prompt.result()).state == "completed"
        assert [turn.text for turn in agent.turns] == [f"p{n}" for n in range(8)]


async def test_what_was_not_accepted_is_raised(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            session = await client.new_session()
            await client.drain()
            prompt = session.prompt("hi")
            with pytest.raises(Refused) as caught:
                await follow(prompt)
            assert (caught.value.reason, caught.value.admitted, caught.value.reasons) == (
                "draining",
                False,
                ["operator"],
            )
            assert prompt.outcome is None


@pytest.mark.parametrize("on_busy", ["refuse", "interrupt"])
async def test_what_to_do_while_a_turn_runs_can_be_said(autojump_clock, door, on_busy):
    with trio.fail_after(60):
        await door.serve(agent=ScriptedAgent({"long": ["a", 30.0]}))
        async with door.connect() as client:
            session = await client.new_session()
            first = session.prompt("long")
            await take_until(first, lambda u: isinstance(u, Text))
            second = session.prompt("short", on_busy=on_busy)
            if on_busy == "refuse":
                with pytest.raises(Refused) as caught:
                    await second.result()
                assert (caught.value.reason, caught.value.admitted) == ("busy", False)
            else:
                assert (await second.result()).state == "completed"
                assert (await first.result()).state == "cancelled"


async def test_a_failure_is_an_outcome(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve(agent=ScriptedAgent({"hi": ["a", ValueError("oops")]}))
        async with door.connect() as client:
            outcome = await (await client.new_session()).prompt("hi").result()
            assert (outcome.state, outcome.error.reason, outcome.error.admitted) == ("failed", "internal", True)


async def test_cancelling_a_prompt_or_the_session(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve(agent=ScriptedAgent({"long": ["a", 300.0]}))
        async with door.connect() as client:
            session = await client.new_session()
            first, second = session.prompt("long"), session.prompt("long too")
            await take_until(first, lambda u: isinstance(u, Text))
            second.cancel()
            assert (await second.result()).state == "cancelled"
            session.cancel()
            assert (await first.result()).state == "cancelled"
            first.cancel()  # which is over
            third = session.prompt("long")
            await take_until(third, lambda u: isinstance(u, Text))
            await session.close()
            with pytest.raises(Lost):
                await session.prompt("more").result()
            with pytest.raises(Lost):
                await anext(session.updates())


async def test_leaving_a_loop_cancels_nothing(autojump_clock, door):
    agent = ScriptedAgent({"hi": ["a", 5.0, "b"]})
    with trio.fail_after(60):
        await door.serve(agent=agent)
        async with door.connect() as client:
            prompt = (await client.new_session()).prompt("hi")
            with trio.move_on_after(2):
                await follow(prompt)
            assert (await prompt.result()).state == "completed"


async def test_the_same_key_joins(autojump_clock, door):
    agent = ScriptedAgent({"hi": ["a", 5.0, "b"]})
    with trio.fail_after(60):
        await door.serve(agent=agent)
        async with door.connect() as client, door.connect() as other:
            session = await client.new_session()
            prompt = session.prompt("hi", key="k")
            with pytest.raises(Refused) as caught:
                await session.prompt("hi", key="k").result()
            assert caught.value.reason == "conflict"
            await take_until(prompt, lambda u: isinstance(u, Text))
            again = (await other.resume(session.id)).prompt("hi", key="k")
            assert said(await follow(again)) == "ab", "also what was said before it was known whose it is"
            assert again.outcome.state == "completed"
            assert (await prompt.result()).state == "completed"
        assert len(agent.turns) == 1


async def test_too_many_prompts_are_refused_here(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve(agent=ScriptedAgent({"long": [300.0]}))
        async with door.connect() as client:
            session = await client.new_session()
            prompts = [session.prompt("long") for _ in range(MOST_PROMPTS + 1)]
            with pytest.raises(Refused) as caught:
                await prompts[-1].result()
            assert (caught.value.reason, caught.value.admitted) == ("busy", False)


async def test_sessions_are_listed_loaded_and_resumed(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            made = [await client.new_session() for _ in range(103)]
            await made[0].prompt("hello").result()
            listed = await client.sessions()
            assert [info.id for info in listed] == [session.id for session in made][::-1]
            assert (listed[-1].last, listed[-1].busy, listed[0].last) == (5, False, 0)
            with pytest.raises(ValueError, match="already"):
                await client.load_session(made[0].id)
        async with door.connect() as client:
            loaded = await client.load_session(made[0].id)
            assert said(loaded.history) == said(loaded.history, "prompt") == "hello"
            assert states(loaded.history) == ["queued", "running", "completed"]
            live = await client.resume(made[1].id)
            assert live.history == ()
            assert said(await follow(live.prompt("more"))) == "more"
            with pytest.raises(Refused) as caught:
                await client.load_session("s-nothing")
            assert caught.value.reason == "unknown_session"
            with pytest.raises(Refused):
                await client.load_session("s-nothing")
        async with door.connect() as client:
            behind = await client.resume(made[0].id, after=2)
            updates = behind.updates()
            found = await take_until(updates, lambda u: isinstance(u, State) and u.ends)
            assert states(found) == ["running", "completed"]
            gone = await client.resume(made[1].id, after=2, epoch="another")
            assert gone.history == (Gap(None, None, "epoch"),)


async def test_everybody_sees_everybodys_prompts(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as ann, door.connect() as bob:
            session = await ann.new_session()
            updates = (await bob.resume(session.id)).updates()
            prompt = session.prompt("hello")
            found = await take_until(updates, lambda u: isinstance(u, State) and u.ends)
            assert (said(found, "prompt"), said(found)) == ("hello", "hello")
            assert "prompt" not in {u.kind for u in await follow(prompt) if isinstance(u, Text)}


# --- coming back ----------------------------------------------------------------------------------------


LONG = {"long": [step for n in range(20) for step in (f"w{n} ", 1.0)]}
WHOLE = "".join(f"w{n} " for n in range(20))


@pytest.mark.parametrize("why", ["slow", "keepalive", "internal"])
async def test_a_lost_connection_loses_nothing(autojump_clock, door, why):
    agent = ScriptedAgent(LONG)
    with trio.fail_after(120):
        await door.serve(agent=agent)
        async with door.connect() as client:
            session = await client.new_session()
            everything = session.updates()
            prompt = session.prompt("long")
            updates = []
            for word in ("w3 ", "w5 ", "w9 "):
                updates += await take_until(prompt, lambda u, word=word: isinstance(u, Text) and word in u.text)
                door.close_connections(why)
            updates += await follow(prompt)
            assert said(updates) == WHOLE
            assert states(updates) == ["queued", "running", "completed"]
            numbers = [u.seq for u in updates if isinstance(u, State)]
            assert numbers == sorted(set(numbers))
            assert sum(isinstance(u, Away) for u in updates) == sum(isinstance(u, Back) for u in updates) == 3
            away = next(u for u in updates if isinstance(u, Away))
            assert away.code in (4101, 4102, 1011)
            assert 0.2 <= away.seconds <= 2
            assert prompt.outcome.state == "completed"
            found = await take_until(everything, lambda u: isinstance(u, State) and u.ends)
            assert said(found) == WHOLE
        assert len(agent.turns) == 1


async def test_a_prompt_that_was_sent_into_a_lost_connection_is_sent_again(autojump_clock, door):
    """Once as it came to the gateway and its answer did not come back, and once as it did not get there."""
    agent = ScriptedAgent(LONG)
    with trio.fail_after(120):
        await door.serve(agent=agent)
        async with door.connect() as client:
            session = await client.new_session()
            door.close_connections("slow")
            first = session.prompt("long")
            assert said(await follow(first)) == WHOLE
            second = session.prompt("hi")
            await trio.testing.wait_all_tasks_blocked()
            door.close_connections("slow")
            third = session.prompt("ho")
            assert said(await follow(second)) == "hi"
            assert said(await follow(third)) == "ho"
        assert [turn.text for turn in agent.turns] == ["long", "hi", "ho"]


async def test_a_prompt_that_the_gateway_could_not_read_is_refused_alone(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve(agent=ScriptedAgent(LONG))
        async with door.connect() as client:
            session = await client.new_session()
            running = session.prompt("long")
            with pytest.raises(Refused, match="UTF-8") as caught:
                await follow(session.prompt("\udcff"))
            assert caught.value.admitted is False
            assert said(await follow(running)) == WHOLE
            assert client.losses == 0


@pytest.mark.parametrize("character", ["x", "é", "😀"])
async def test_a_prompt_may_be_as_long_in_utf_8_as_the_gateway_takes(autojump_clock, door, character):
    with trio.fail_after(60):
        await door.serve(agent=ScriptedAgent(LONG))
        async with door.connect() as client:
            session = await client.new_session()
            running = session.prompt("long")
            fits = character * (1_000_000 // len(character.encode()))
            with pytest.raises(Refused, match="not sent") as caught:
                await follow(session.prompt(fits * 2))
            assert (caught.value.reason, caught.value.admitted) == ("invalid_params", False)
            assert said(await follow(running)) == WHOLE
            assert said(await follow(session.prompt(fits))) == fits
            assert client.losses == 0


async def test_a_gateway_that_takes_less_says_so(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve("[server]\nmax_message_bytes = 2000")
        async with door.connect() as client:
            session = await client.new_session()
            with pytest.raises(Refused, match="at most 2000"):
                await follow(session.prompt("x" * 2000))
            assert said(await follow(session.prompt("x" * 1000))) == "x" * 1000
        await door.serve("[server]\nmax_message_bytes = 4000000")
        async with door.connect() as client:
            session = await client.new_session()
            outcome = await session.prompt("x" * 3_000_000).result()
            assert outcome.state == "completed"


async def test_a_prompt_that_was_broken_on_its_way_is_lost_and_the_others_go_on(autojump_clock, door):
    agent = ScriptedAgent(LONG)
    with trio.fail_after(60):
        await door.serve(agent=agent)
        async with door.connect() as client:
            session = await client.new_session()
            updates = session.updates()
            running = session.prompt("long")
            await take_until(updates, lambda u: isinstance(u, Text) and u.kind == "answer")
            broken = session.prompt("hi")
            wire = client._board.keeper.wire
            wire._posted[-1] = wire._posted[-1][:-1]
            with pytest.raises(Lost, match="could not read"):
                await follow(broken)
            assert said(await follow(running)) == WHOLE
            assert client.losses == 1
        assert [turn.text for turn in agent.turns] == ["long"]


async def test_what_was_before_a_live_session_stays_away(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client, door.connect() as other:
            session = await client.new_session()
            await session.prompt("old").result()
            live = await other.resume(session.id)
            updates = live.updates()
            door.close_connections("slow")
            await take_until(updates, lambda u: isinstance(u, Back))
            await session.prompt("new").result()
            found = await take_until(updates, lambda u: isinstance(u, State) and u.ends)
            assert said(found, "prompt") == said(found) == "new"


async def test_a_command_that_may_have_run_is_not_sent_again(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            session = await client.new_session()
            door.close_connections("slow")
            prompt = session.prompt("/drain")
            with pytest.raises(Lost, match="not sent again"):
                await prompt.result()
            waiting = session.prompt("/status")
            assert (await waiting.result()).state == "completed"


async def test_cancelling_while_away_is_done_when_it_is_back(autojump_clock, door):
    with trio.fail_after(120):
        await door.serve(agent=ScriptedAgent({"long": ["a", 300.0]}))
        async with door.connect() as client:
            session = await client.new_session()
            first, second = session.prompt("long"), session.prompt("long")
            await take_until(first, lambda u: isinstance(u, Text))
            door.close_connections("slow")
            await take_until(first, lambda u: isinstance(u, Away))
            session.cancel()
            second.cancel()
            assert (await first.result()).state == "cancelled"
            assert (await second.result()).state == "cancelled"


async def test_a_session_that_is_gone_with_the_gateway_says_so(autojump_clock, door):
    with trio.fail_after(120):
        await door.serve(agent=ScriptedAgent(LONG))
        async with door.connect() as client:
            session = await client.new_session()
            everything = session.updates()
            prompt = session.prompt("long")
            await take_until(prompt, lambda u: isinstance(u, Text))
            door.gateway.drain("restart", by="the test", grace_seconds=1)
            outcome = await prompt.result()
            assert (outcome.state, outcome.error.admitted) == ("interrupted", True)
            await door.gateway.closed.wait()
            await door.serve()
            with pytest.raises(Refused) as caught:
                await take_until(everything, lambda _: False)
            assert caught.value.reason == "unknown_session"
            with pytest.raises(Refused):
                await session.prompt("more").result()
            assert (await (await client.new_session()).prompt("more").result()).state == "completed"


async def test_another_log_is_told_and_runs_nothing_twice(autojump_clock, door):
    """A gateway whose store was lost, but for the session's row."""
    agent = ScriptedAgent(LONG)
    with trio.fail_after(120):
        await door.serve(agent=agent)
        async with door.connect() as client:
            session = await client.new_session()
            everything = session.updates()
            prompt = session.prompt("long")
            await take_until(prompt, lambda u: isinstance(u, Text))
            door.close_connections("slow")
            door.gateway.sessions.find(session.id).epoch = "another"
            with pytest.raises(Lost, match="lost this session's log"):
                await prompt.result()
            found = await take_until(everything, lambda u: isinstance(u, State) and u.ends)
            assert Gap(None, None, "epoch") in found
            assert said(found[found.index(Gap(None, None, "epoch")) :]) == WHOLE, "live events follow"
        assert len(agent.turns) == 1


async def test_what_is_not_kept_any_more_is_told(autojump_clock, door):
    """The prompt's own events are gone: its outcome is told all the same."""
    with trio.fail_after(120):
        await door.serve("[session]\nkeep_bytes = 2000\n", agent=ScriptedAgent({"long": ["a", 5.0, "b" * 1000]}))
        async with door.connect() as client, door.connect() as other:
            session = await client.new_session()
            theirs = await other.resume(session.id)
            everything = session.updates()
            prompt = session.prompt("long")
            await take_until(prompt, lambda u: isinstance(u, Text))
            listener, door.listener = door.listener, None
            await trio.aclose_forcefully(client._board.keeper.wire._link._stream)
            for _ in range(5):
                await theirs.prompt("x" * 500).result()
            door.listener = listener
            assert (await prompt.result()).state == "completed"
            found = await take_until(everything, lambda u: isinstance(u, Gap))
            assert found[-1] == Gap(None, None, "too_old")


async def test_when_it_is_over_everything_ends(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve(agent=ScriptedAgent(LONG))
        async with door.connect() as client:
            session = await client.new_session()
            everything = session.updates()
            prompt = session.prompt("long")
            await take_until(prompt, lambda u: isinstance(u, Text))
            door.close_connections("revoked")
            for waiting in (
                prompt.result(),
                take_until(everything, lambda _: False),
                session.prompt("x").result(),
            ):
                with pytest.raises(Closed) as caught:
                    await waiting
                assert caught.value.code == 4501


async def test_a_prompt_that_is_kept_over_a_restart_is_asked_for_again(autojump_clock, door):
    """What a durable store answers for those that wait: accepted, and no outcome yet."""
    agent = ScriptedAgent(LONG)
    with trio.fail_after(120):
        await door.serve(agent=agent)
        async with door.connect() as client:
            session = await client.new_session()
            prompt = session.prompt("long")
            await take_until(prompt, lambda u: isinstance(u, Text))
            held = problem("held", "it runs after the restart", admitted=True).to_wire()
            client._board.keeper.wire._take(Response(prompt.request_id, None, held))
            door.close_connections("restart")
            assert (await prompt.result()).state == "completed"
        assert len(agent.turns) == 1


async def test_what_comes_before_anybody_reads_is_there(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve(agent=ScriptedAgent({"hi": ["a", 1.0, "b"]}))
        async with door.connect() as client, door.connect() as other:
            session = await client.new_session()
            prompt = session.prompt("hi")
            await take_until(prompt, lambda u: isinstance(u, Text))
            live = await other.resume(session.id)
            await prompt.result()
            await trio.testing.wait_all_tasks_blocked()
            assert said(live.updates().drain()) == "ab"
            assert live.updates().drain() == []
            third = await client.new_session()
            third.prompt("/status")
            await trio.testing.wait_all_tasks_blocked()
            assert third.updates().drain() == [], "it is for those who prompt nothing"


# --- permission -----------------------------------------------------------------------------------------


def asked(session, id_="p1"):
    options = [{"optionId": "yes", "name": "Yes", "kind": "allow_once"}]
    tool = {"toolCallId": "1", "title": "Delete it?"}
    return Request(
        id_, "session/request_permission", {"sessionId": session.id, "toolCall": tool, "options": options}
    )


async def test_a_permission_request_is_shown_and_answered(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            session = await client.new_session()
            updates = session.updates()
            client._board.incoming(asked(session))
            (permission,) = [u for u in await take_until(updates, _is_permission) if _is_permission(u)]
            assert (permission.title, permission.options[0].id) == ("Delete it?", "yes")
            assert session.permissions() == [permission]
            wire = client._board.keeper.wire
            assert session.permit(permission, "yes")
            answer = json.loads(wire._posted[-1])
            assert (answer["id"], answer["result"]) == (
                "p1",
                {"outcome": {"outcome": "selected", "optionId": "yes"}},
            )
            over = await take_until(updates, lambda u: isinstance(u, PermissionOver))
            assert over[-1] == PermissionOver("p1")
            assert not session.permit(permission, "yes")
            assert session.permissions() == []


async def test_a_permission_request_can_be_withdrawn(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            session = await client.new_session()
            updates = session.updates()
            client._board.incoming(asked(session))
            client._board.incoming(Notification("$/cancel_request", {"requestId": "p1"}))
            answer = json.loads(client._board.keeper.wire._posted[-1])
            assert (answer["id"], answer["result"]) == ("p1", {"outcome": {"outcome": "cancelled"}})
            client._board.incoming(Notification("$/cancel_request", {"requestId": ["odd"]}))
            client._board.incoming(asked(session, "p2"))
            door.close_connections("slow")
            over = [
                u
                for u in await take_until(updates, lambda u: isinstance(u, Away))
                if isinstance(u, PermissionOver)
            ]
            assert over == [PermissionOver("p1"), PermissionOver("p2")]
            client._board.incoming(asked(session, "p3"))
            assert not session.permit(session.permissions()[0], "yes"), "there is no connection"


async def test_what_the_gateway_asks_and_we_do_not_know_is_answered(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            client._board.incoming(Request(9, "fs/read_text_file", {"path": "/etc/passwd"}))
            answer = json.loads(client._board.keeper.wire._posted[-1])
            assert (answer["id"], answer["error"]["code"]) == (9, -32601)
            client._board.incoming(Notification("session/update", {"sessionId": "nobody's", "update": {}}))
            client._board.incoming(Notification("session/update", None))


def _is_permission(update):
    return isinstance(update, Permission)


class UnreadableStore(FailingStore):
    """One whose reads fail too."""

    async def session(self, id_):
        if self.failing:
            raise StoreUnavailable("disk I/O error")
        return await super().session(id_)


async def test_a_session_that_cannot_be_resumed_for_now_is_resumed_later(autojump_clock, door):
    """The store of the gateway that came up does not answer yet."""
    store = UnreadableStore(durable=True)
    with trio.fail_after(300):
        await door.serve(store=store)
        async with door.connect() as client:
            session = await client.new_session()
            updates = session.updates()
            assert (await session.prompt("before").result()).state == "completed"
            await door.restart()
            prompt = session.prompt("meanwhile")
            await door.serve(store=store)
            store.failing = True
            await take_until(updates, lambda u: isinstance(u, Away))
            async for phase in client.phases():
                if phase.name == "open":
                    break
            await trio.sleep(20)
            assert prompt.outcome is None
            store.failing = False
            assert (await prompt.result()).state == "completed"
            await take_until(updates, lambda u: isinstance(u, Back))
