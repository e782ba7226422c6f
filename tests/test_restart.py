"""What a durable store makes of the end of a process: nothing that was accepted is lost, nothing runs twice.

`left()` of a store is what a `kill -9` at that moment would leave on the disk.
"""

import pytest
import trio

from gateway_trio.agents import TextDelta, ToolCall
from gateway_trio.config import parse_config
from gateway_trio.sqlite_store import SqliteStore
from gateway_trio.testing import AcpError, FailingStore, KeptStore, ScriptedAgent, open_gateway, ours_of

LIMIT = 7200  # virtual seconds

SMALL = parse_config("[session]\nkeep_bytes = 2000\n", environ={})


async def begun(lab, text):
    """A client, its session, and the id of a prompt whose turn has said something."""
    client = await lab.acp()
    session = await client.new_session()
    id_ = await client.ask_prompt(session, text, key="first")
    await client.until(lambda frame: client.text())
    return client, session, id_


async def queue(client, session, text):
    """Send a prompt that has to wait; the text is its key."""
    id_ = await client.ask_prompt(session, text, key=text)
    await client.until(lambda frame: ours_of(frame).get("turn", {}).get("key") == text)
    return id_


async def attach(lab, session, **ours):
    """A new client that resumes the session; with what it is told about that."""
    client = await lab.acp()
    params = {"sessionId": session, "cwd": "/", "_meta": {"gateway-trio": ours}}
    result = await client.call("session/resume", params)
    return client, result["_meta"]["gateway-trio"]


async def load(lab, session):
    client = await lab.acp()
    result = await client.call("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
    return client, result["_meta"]["gateway-trio"]


def numbers(client):
    """The seq of each update, each once, in order of arrival."""
    return list(dict.fromkeys(ours["seq"] for f in client.frames if (ours := ours_of(f)).get("seq")))


def said(client):
    """Each message's text, as a client puts it together."""
    texts = {}
    for frame in client.frames:
        update = (frame.get("params") or {}).get("update") or {}
        if update.get("sessionUpdate") == "agent_message_chunk" and "at" in (ours := ours_of(frame)):
            before = texts.get(ours["seq"], "")
            assert ours["at"] <= len(before)
            texts[ours["seq"]] = before[: ours["at"]] + update["content"]["text"]
    return texts


async def refusal(client, session, text, **ours):
    with pytest.raises(AcpError) as caught:
        await client.prompt(session, text, **ours)
    return caught.value


async def test_a_turn_that_ran_is_interrupted_with_its_text_and_retry_runs_it_again(autojump_clock):
    agent = ScriptedAgent({"slow": ["half an answer", 100], "next": ["fine"]})
    with trio.fail_after(LIMIT):
        store = KeptStore()
        async with open_gateway(agent=agent, store=store) as lab:
            _, session, _ = await begun(lab, "slow")
            await trio.sleep(1)
            left = store.left()
        async with open_gateway(agent=agent, store=left) as lab:
            client, found = await load(lab, session)
            assert found["recovered"]
            assert said(client) == {4: "half an answer"}
            answer = next(i for i, f in enumerate(client.frames) if "recovered" in str(f.get("result")))
            assert not any(ours_of(f) for f in client.frames[answer:]), "the response stands behind the events"
            states = [ours_of(f)["turn"]["state"] for f in client.frames if "turn" in ours_of(f)]
            assert states == ["queued", "running", "interrupted"]
            agent.scripts["slow"] = ["whole"]
            assert await client.prompt(session, "/retry") == {"stopReason": "end_turn"}
            assert agent.turns[-1].text == "slow"
            assert not agent.turns[-1].history
            assert (await client.prompt(session, "next"))["stopReason"] == "end_turn"
            assert [item.text for item in agent.turns[-1].history] == ["slow", "whole"]


async def test_after_an_interruption_the_history_has_the_words_once_and_the_part_marked(autojump_clock):
    """Case 48."""
    agent = ScriptedAgent({"slow": ["half", 100]})
    with trio.fail_after(LIMIT):
        store = KeptStore()
        async with open_gateway(agent=agent, store=store) as lab:
            _, session, _ = await begun(lab, "slow")
            await trio.sleep(1)
            left = store.left()
        async with open_gateway(agent=agent, store=left) as lab:
            client, _ = await load(lab, session)
            await client.prompt(session, "next")
            history = agent.turns[-1].history
            assert [(h.role, h.text, h.interrupted) for h in history] == [
                ("user", "slow", False),
                ("assistant", "half", True),
            ]


async def test_a_key_of_an_earlier_run_joins_what_it_named(autojump_clock):
    agent = ScriptedAgent({"slow": ["half", 100], "quick": ["done"]})
    with trio.fail_after(LIMIT):
        store = KeptStore()
        async with open_gateway(agent=agent, store=store) as lab:
            client, session, _ = await begun(lab, "quick")
            await client.until_state("completed")
            await client.ask_prompt(session, "slow", key="second")
            await client.until(lambda frame: "half" in client.text())
            left = store.left()
        ran = len(agent.turns)
        async with open_gateway(agent=agent, store=left) as lab:
            client, _ = await attach(lab, session)
            assert (await client.prompt(session, "quick", key="first"))["stopReason"] == "end_turn"
            assert (await refusal(client, session, "slow", key="second")).reason == "interrupted"
            assert (await refusal(client, session, "other", key="first")).reason == "conflict"
        assert len(agent.turns) == ran


async def test_what_waited_runs_once_and_before_new_prompts(autojump_clock):
    """Case 44."""
    agent = ScriptedAgent({"slow": ["half", 100]})
    with trio.fail_after(LIMIT):
        store = KeptStore()
        async with open_gateway(agent=agent, store=store) as lab:
            client, session, _ = await begun(lab, "slow")
            for text in ("one", "two"):
                await queue(client, session, text)
            left = store.left()
        agent.turns.clear()
        async with open_gateway(agent=agent, store=left) as lab:
            client, _ = await attach(lab, session)
            await client.prompt(session, "new")
            assert [turn.text for turn in agent.turns] == ["one", "two", "new"]
            assert (await client.prompt(session, "one", key="one"))["stopReason"] == "end_turn"
        assert [turn.text for turn in agent.turns] == ["one", "two", "new"]


@pytest.mark.parametrize("reason", ["restart", "shutdown"])
async def test_a_drain_answers_what_waits_as_kept_and_the_next_run_has_it(reason, autojump_clock):
    agent = ScriptedAgent({"slow": ["half", 100]})
    with trio.fail_after(LIMIT):
        store = KeptStore()
        async with open_gateway(agent=agent, store=store) as lab:
            client, session, slow = await begun(lab, "slow")
            waits = await queue(client, session, "waits")
            lab.gateway.drain(reason, grace_seconds=1)
            with pytest.raises(AcpError) as caught:
                await client.answer(waits)
            data = caught.value.data
            assert ("restarts" in str(caught.value)) == (reason == "restart")
            assert caught.value.code == -32010
            assert (data["admitted"], data["retryable"]) == (True, False)
            with pytest.raises(AcpError):
                await client.answer(slow)
            await lab.gateway.closed.wait()
        agent.turns.clear()
        async with open_gateway(agent=agent, store=store) as lab:
            client, _ = await load(lab, session)
            await client.until_state("completed")
        assert [turn.text for turn in agent.turns] == ["waits"]


async def finishing(lab, client, session, slow):
    """Let the gateway go down as far as `finishing`, where an exec that runs holds it; return what lets it go on."""
    execs = lab.gateway.coordinator.execs
    execs.add(exec_ := object())
    waits = await queue(client, session, "waits")
    lab.gateway.drain("restart", grace_seconds=1)
    for id_ in (waits, slow):
        with pytest.raises(AcpError):
            await client.answer(id_)
    await client.until(lambda frame: (frame.get("params") or {}).get("phase") == "finishing")

    def go_on():
        execs.discard(exec_)
        lab.gateway.coordinator.poke()

    return go_on


async def test_what_is_kept_for_the_next_run_keeps_its_key(autojump_clock):
    agent = ScriptedAgent({"slow": ["half", 100]})
    with trio.fail_after(LIMIT):
        store = KeptStore()
        async with open_gateway(agent=agent, store=store) as lab:
            client, session, slow = await begun(lab, "slow")
            go_on = await finishing(lab, client, session, slow)
            for _ in range(2):
                kept = await refusal(client, session, "waits", key="waits")
                assert (kept.reason, kept.data["admitted"], kept.data["retryable"]) == ("draining", True, False)
            for other in ("another one", "/status"):
                assert (await refusal(client, session, other, key="waits")).reason == "conflict"
            go_on()
            await lab.gateway.closed.wait()
            assert lab.gateway.report.turns_queued == 1
        agent.turns.clear()
        async with open_gateway(agent=agent, store=store) as lab:
            client, _ = await attach(lab, session)
            assert (await client.prompt(session, "waits", key="waits"))["stopReason"] == "end_turn"
        assert [turn.text for turn in agent.turns] == ["waits"]


@pytest.mark.parametrize("how", ["/stop", "session/close"])
async def test_what_is_kept_for_the_next_run_can_be_dropped_before(how, autojump_clock):
    agent = ScriptedAgent({"slow": ["half", 100]})
    with trio.fail_after(LIMIT):
        store = KeptStore()
        async with open_gateway(agent=agent, store=store) as lab:
            client, session, slow = await begun(lab, "slow")
            go_on = await finishing(lab, client, session, slow)
            if how == "/stop":
                assert (await client.prompt(session, "/stop"))["stopReason"] == "end_turn"
                assert "Dropped: waits" in client.text()
            else:
                await client.call("session/close", {"sessionId": session})
            assert lab.gateway.phase.value == "finishing"
            go_on()
            await lab.gateway.closed.wait()
            assert lab.gateway.report.turns_queued == 1, "as one that never ran"
        agent.turns.clear()
        async with open_gateway(agent=agent, store=store) as lab:
            client, _ = await load(lab, session)
            (state,) = [
                t["state"] for f in client.frames if (t := ours_of(f).get("turn")) and t["key"] == "waits"
            ][-1:]
            assert state == "cancelled"
            await client.prompt(session, "new")
        assert [turn.text for turn in agent.turns] == ["new"]


async def test_a_prompt_that_waited_too_long_is_not_run(autojump_clock):
    """Case 47: nothing is silently run days later."""
    agent = ScriptedAgent({"slow": ["half", 100]})
    config = parse_config("[session]\nqueued_seconds = 1e-9\n", environ={})
    with trio.fail_after(LIMIT):
        store = KeptStore()
        async with open_gateway(agent=agent, store=store) as lab:
            client, session, _ = await begun(lab, "slow")
            await queue(client, session, "waits")
            left = store.left()
        agent.turns.clear()
        async with open_gateway(config, agent=agent, store=left) as lab:
            client, _ = await attach(lab, session)
            fault = await refusal(client, session, "waits", key="waits")
            assert fault.reason == "interrupted"
            client, _ = await load(lab, session)
            reasons = [ours_of(f)["turn"]["reason"] for f in client.frames if "turn" in ours_of(f)]
            assert reasons[-1] == "stale"
        assert agent.turns == []


@pytest.mark.parametrize("config", [None, SMALL], ids=["all in memory", "most in the store"])
async def test_a_client_gets_over_a_restart_what_it_missed_once_and_in_order(config, autojump_clock):
    """Cases 51 and 52 over a restart: the epoch and the numbers stand."""
    agent = ScriptedAgent({f"p{i}": [f"answer {i} ", "and more"] for i in range(30)})
    with trio.fail_after(LIMIT):
        store = KeptStore()
        async with open_gateway(config, agent=agent, store=store) as lab:
            client, session, _ = await begun(lab, "p0")
            for i in range(1, 30):
                await client.prompt(session, f"p{i}")
            last = max(numbers(client))
        async with open_gateway(config, agent=agent, store=store) as lab:
            client, first = await load(lab, session)
            assert numbers(client) == list(range(1, last + 1))
            assert list(said(client).values()) == [f"answer {i} and more" for i in range(30)]
            assert first == {"recovered": True, "epoch": first["epoch"], "last": last}
            again, found = await attach(lab, session, after=last - 7, epoch=first["epoch"])
            assert found["recovered"]
            await again.prompt(session, "p0")
            assert [n for n in numbers(again) if n <= last] == list(range(last - 6, last + 1))
            for ours, reason in (
                ({"after": last + 99, "epoch": first["epoch"]}, "too_new"),
                ({"after": 1, "epoch": "another"}, "epoch"),
            ):
                _, found = await attach(lab, session, **ours)
                assert (found["recovered"], found["reason"]) == (False, reason)


async def test_a_resume_far_behind_the_window_replays_from_the_store(autojump_clock):
    agent = ScriptedAgent({"slow": ["first part", lambda turn, emit: waited(emit)]})
    go = trio.Event()

    async def waited(emit):
        await go.wait()
        await emit(TextDelta(", last part"))

    with trio.fail_after(LIMIT):
        async with open_gateway(SMALL, agent=agent, store=KeptStore()) as lab:
            client, session, slow = await begun(lab, "slow")
            after = max(numbers(client))
            go.set()
            await client.answer(slow)
            for i in range(20):
                await client.prompt(session, f"filler {i}")
            assert lab.gateway.sessions.find(session).log.trimmed > after
            again, found = await attach(lab, session, after=after)
            assert found["recovered"]
            await again.prompt(session, "end")
            assert said(again)[after] == "first part, last part", "the unfinished one comes anew, from its start"
            own = [ours_of(f)["turn"]["seq"] for f in again.frames if "turn" in ours_of(f)][-1]  # not echoed live
            assert sorted([*numbers(again), own]) == list(range(after, max(numbers(again)) + 1))
            assert not any("lost" in ours_of(f) for f in again.frames)


@pytest.mark.parametrize("second", ["load", "resume"])
async def test_a_load_that_another_one_overtakes_is_answered_too(second, autojump_clock):
    with trio.fail_after(LIMIT):
        async with open_gateway(SMALL, store=KeptStore()) as lab:
            client = await lab.acp()
            session = await client.new_session()
            for i in range(20):
                await client.prompt(session, f"filler {i}")
            asked = [
                await client.ask(f"session/{method}", {"sessionId": session, "cwd": "/", "mcpServers": []})
                for method in ("load", second)
            ]
            answers = [await client.answer(id_) for id_ in asked]
            assert [answer["_meta"]["gateway-trio"]["last"] for answer in answers] == [100, 100]


async def test_names_of_sessions_and_the_list_are_there_after_a_restart(autojump_clock):
    with trio.fail_after(LIMIT):
        store = KeptStore()
        async with open_gateway(store=store) as lab:
            chat = await lab.chat("work")
            await chat.send("hello")
            await chat.until("hello")
            client = await lab.acp()
            ids = [await client.new_session() for _ in range(3)]
        async with open_gateway(store=store) as lab:
            client = await lab.acp()
            listed = (await client.call("session/list", {}))["sessions"]
            assert [s["sessionId"] for s in listed][:3] == ids[::-1]
            assert listed[-1]["title"] == "work"
            assert len(lab.gateway.sessions) == 0, "nothing is read that nobody asks for"
            chat = await lab.chat("work")
            await chat.send("/history")
            assert "hello" in await chat.receive()


async def test_an_exec_that_a_crash_cut_off_has_an_unknown_outcome_and_does_not_run_again():
    store = KeptStore()
    config = parse_config('[quick_commands.wait]\ntype = "exec"\ncommand = "sleep 60"\n', environ={})
    with trio.fail_after(60):
        async with open_gateway(config, store=store) as lab:
            client = await lab.acp()
            session = await client.new_session()
            await client.ask_prompt(session, "/wait", key="k")
            await client.until(lambda f: ours_of(f).get("exec", {}).get("state") == "running")
            left = store.left()
            for exec_ in lab.gateway.execs.list():
                await client.prompt(session, f"/kill {exec_.id}")
        async with open_gateway(config, store=left) as lab:
            client, _ = await load(lab, session)
            assert "outcome unknown" in client.text()
            answer = await client.prompt(session, "/wait", key="k")
            assert answer["_meta"]["gateway-trio"]["status"] == "unknown"
            assert not lab.gateway.execs.list()
        (row,) = left.execs.values()
        assert row[1].facts["status"] == "unknown"


# --- a store that fails, and what it is told later ------------------------------------------------


async def test_what_was_told_without_the_store_is_stored_when_it_works_again(autojump_clock):
    agent, store = ScriptedAgent({"slow": ["half", 5, "whole"]}), FailingStore(1000, durable=True)
    with trio.fail_after(LIMIT):
        async with open_gateway(agent=agent, store=store) as lab:
            client, session, slow = await begun(lab, "slow")
            store.failing = True
            assert await client.answer(slow) == {"stopReason": "end_turn"}
            assert (await refusal(client, session, "x")).reason == "store_unavailable"
            assert await store.unfinished()
            store.failing = False
            await trio.sleep(60)
            assert not await store.unfinished()
            assert [row.number for row in await store.tail(session, keep_bytes=10**6)] == [1, 2, 3, 4, 5]
            assert (await client.prompt(session, "next"))["stopReason"] == "end_turn"
        rows = await store.tail(session, keep_bytes=10**6)
        assert [row.number for row in rows] == list(range(1, len(rows) + 1))
        assert rows[3].text == "halfwhole"


async def test_a_crash_right_after_the_store_works_again_leaves_no_outcome_without_its_text(autojump_clock):
    """The next prompt stores the outcome that was owed, long before the saver tries again."""
    agent, store, left = (
        ScriptedAgent({"slow": ["half", 5, "whole"]}),
        FailingStore(1000, durable=True),
        KeptStore(),
    )
    with trio.fail_after(LIMIT):
        async with open_gateway(agent=agent, store=store) as lab:
            client, session, slow = await begun(lab, "slow")
            store.failing = True
            assert await client.answer(slow) == {"stopReason": "end_turn"}
            await trio.sleep(20)
            store.failing = False
            await client.prompt(session, "next")
            left.take_over(store)
        async with open_gateway(agent=agent, store=left) as lab:
            client, _ = await load(lab, session)
            assert [ours_of(f)["turn"]["state"] for f in client.frames if "turn" in ours_of(f)][2] == "completed"
            assert said(client)[4] == "halfwhole"


@pytest.mark.parametrize("happens", [True, False])
async def test_a_commit_that_was_given_up_leaves_nothing_that_runs_later(happens, autojump_clock):
    """It was refused with `admitted: false`: so it must not run after a restart, whatever became of the commit."""
    store = FailingStore(1000, durable=True)
    agent = ScriptedAgent()
    with trio.fail_after(LIMIT):
        async with open_gateway(agent=agent, store=store) as lab:
            client = await lab.acp()
            session = await client.new_session()
            store.stall(happens=happens)
            fault = await refusal(client, session, "refused", key="k")
            assert fault.reason == "store_unavailable"
            assert not fault.data["admitted"]
            store.go()
            await trio.sleep(60)
            assert not await store.unfinished()
            assert (await client.prompt(session, "refused", key="k"))["stopReason"] == "end_turn"
            rows = await store.tail(session, keep_bytes=10**6)
            assert [row.number for row in rows] == [1, 2, 3, 4, 5]
        assert len(agent.turns) == 1


async def test_an_outcome_that_did_not_wait_for_the_store_keeps_its_number(autojump_clock):
    """A message's row is on its way when its turn is given up: the outcome takes the number, also on the disk."""
    store = FailingStore(1000, durable=True)
    agent = ScriptedAgent({"slow": ["half", 5, lambda turn, emit: emit(TextDelta("x" * 300_000)), 1000]})
    with trio.fail_after(LIMIT):
        async with open_gateway(agent=agent, store=store) as lab:
            client, session, slow = await begun(lab, "slow")
            await trio.sleep(4)
            store.stall(happens=True)
            await trio.sleep(2)
            await client.notify("session/cancel", {"sessionId": session})
            assert await client.answer(slow) == {"stopReason": "cancelled"}
            number = max(numbers(client))
            store.go()
            await trio.sleep(60)
            assert not await store.unfinished()
            rows = {row.number: row for row in await store.tail(session, keep_bytes=10**6)}
            assert max(rows) == number
            assert rows[number].body.state == "cancelled"
            assert (await client.prompt(session, "next"))["stopReason"] == "end_turn"


async def test_a_text_that_is_not_stored_yet_is_not_forgotten(autojump_clock):
    """However little is kept in memory: who reads slowly gets it whole, and so does the store once it works."""
    agent, store = ScriptedAgent({"slow": ["half", 5, "x" * 5000, 1000]}), FailingStore(1000, durable=True)
    with trio.fail_after(LIMIT):
        async with open_gateway(SMALL, agent=agent, store=store) as lab:
            client, session, slow = await begun(lab, "slow")
            number = max(numbers(client))
            store.failing = True
            await trio.sleep(6)
            await client.notify("session/cancel", {"sessionId": session})
            assert await client.answer(slow) == {"stopReason": "cancelled"}
            late, _ = await load(lab, session)
            assert said(late)[number] == "half" + "x" * 5000
            log = lab.gateway.sessions.find(session).log
            assert log.get(number) is not None
            store.failing = False
            await trio.sleep(60)
            assert log.get(number) is None, "the store has it, and it is more than is kept"
            late, _ = await load(lab, session)
            assert said(late)[number] == "half" + "x" * 5000


@pytest.mark.parametrize("method", ["load", "resume"])
async def test_what_was_unfinished_comes_anew_also_to_who_has_every_number(method, autojump_clock):
    """The client was cut off in the middle of it, and all of it stands in the store alone by now."""
    agent = ScriptedAgent({"slow": ["x" * 5000, ToolCall("1", "look"), ToolCall("2", "look"), 1000]})
    with trio.fail_after(LIMIT):
        async with open_gateway(SMALL, agent=agent, store=KeptStore()) as lab:
            client, session, _ = await begun(lab, "slow")
            await client.until(lambda frame: "look" in str(frame) and "2" in str(frame))
            await trio.sleep(1)
            log = lab.gateway.sessions.find(session).log
            (number,) = said(client)
            assert log.get(number) is None
            again = await lab.acp()
            meta = {"_meta": {"gateway-trio": {"after": log.last}}}
            await again.call(f"session/{method}", {"sessionId": session, "cwd": "/", "mcpServers": [], **meta})
            await again.until(lambda _: len(again.text()) == 5000)
            assert numbers(again) == [number]


@pytest.mark.parametrize("after", [10**4, 2**63 - 1, 2**63, 10**30])
async def test_a_place_beyond_the_log_is_none_however_far(after, tmp_path):
    with trio.fail_after(60):
        async with open_gateway(SMALL, store=SqliteStore(tmp_path / "x.db")) as lab:
            client = await lab.acp()
            session = await client.new_session()
            for i in range(20):
                await client.prompt(session, f"filler {i}")
            again, found = await attach(lab, session, after=after)
            assert (found["recovered"], found["reason"]) == (False, "too_new")
            params = {"sessionId": session, "cwd": "/", "_meta": {"gateway-trio": {"after": after}}}
            with pytest.raises(AcpError) as caught:
                await again.call("session/load", params)
            assert caught.value.reason == "conflict"
