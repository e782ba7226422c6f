"""Who asks for it is told of every turn and exec that comes and goes; and what runs stands in the status."""

import hashlib

import trio

from gateway_trio.client import connect
from gateway_trio.config import Config, ExecCommand, parse_config
from gateway_trio.testing import ScriptedAgent
from memory import acp_lab

AGENT = {"long": [5.0, "done"]}
SLEEPER = ExecCommand("sleeper", command="echo before; sleep 300", role="user")
TOKENS = "".join(
    f"""
[[auth.tokens]]
name = "{name}"
role = "{role}"
sha256 = "{hashlib.sha256(f"token-of-{name}".encode()).hexdigest()}"
"""
    for name, role in (("ann", "admin"), ("bob", "user"), ("cid", "user"))
)


async def counting(lab, asked=True):
    client = await lab.connect()
    meta = {"_meta": {"gateway-trio": {"counts": asked}}}
    await client.call("initialize", {"protocolVersion": 1, "clientCapabilities": meta})
    await client.until(lambda f: f.get("method") == "_gateway-trio/phase")
    return client


def told(client):
    return [(phase["phase"], phase["turns"], phase["execs"]) for phase in client.phases()]


async def test_turns_are_told_as_they_come_and_go(autojump_clock):
    async with acp_lab(agent=ScriptedAgent(AGENT)) as lab:
        watching, other = await counting(lab), await counting(lab, asked="yes")
        client = await lab.acp()
        session = await client.new_session()
        id_ = await client.ask_prompt(session, "long")
        await watching.until(lambda f: f.get("params", {}).get("turns") == 1)
        await client.call("_gateway-trio/drain")
        await client.answer(id_)
        await watching.until(lambda f: "draining" in str(f) and f["params"]["turns"] == 0)
        assert told(watching) == [("open", 0, 0), ("open", 1, 0), ("draining", 1, 0), ("draining", 0, 0)]
        for one in (other, client):
            await one.call("_gateway-trio/status")
            assert told(one) == [("open", 0, 0), ("draining", 1, 0)], "only the phase, to who asks for no more"


async def test_one_who_has_gone_is_told_nothing(autojump_clock):
    async with acp_lab() as lab:
        watching = await counting(lab)
        assert len(lab.gateway.counting) == 1
        await watching.websocket.aclose()
        with trio.fail_after(5):
            while lab.gateway.connections:
                await trio.testing.wait_all_tasks_blocked()
        assert lab.gateway.counting == set()


async def test_counts_are_no_notices_of_the_drain(autojump_clock):
    """The report has the time from its first notice to its last: not that to the end of the last turn."""
    async with acp_lab(agent=ScriptedAgent(AGENT)) as lab:
        watching = await counting(lab)
        session = await watching.new_session()
        id_ = await watching.ask_prompt(session, "long")
        await watching.until(lambda f: f.get("params", {}).get("turns") == 1)
        second = await watching.new_session()
        await watching.ask_prompt(second, "long")
        await watching.until(lambda f: f.get("params", {}).get("turns") == 2)
        lab.gateway.drain("shutdown", by="a test")
        await trio.sleep(1)
        await watching.notify("session/cancel", {"sessionId": session})
        await watching.answer(id_)
        await lab.gateway.closed.wait()
        assert ("draining", 1, 0) in told(watching)
        assert lab.gateway.report.notice_seconds == 0


async def test_execs_are_told_and_stand_in_the_status_of_who_may_end_them():
    config = parse_config(
        TOKENS + '[quick_commands.sleeper]\ntype="exec"\ncommand="echo out; sleep 300"\nrole="user"', environ={}
    )
    async with acp_lab(config) as lab:
        clients = {name: await lab.acp(token=f"token-of-{name}") for name in ("ann", "bob", "cid")}
        watching = await lab.connect(token="token-of-ann")
        meta = {"_meta": {"gateway-trio": {"counts": True}}}
        await watching.call("initialize", {"protocolVersion": 1, "clientCapabilities": meta})
        id_ = await clients["bob"].ask("_gateway-trio/exec", {"name": "sleeper"})
        await watching.until(lambda f: f.get("params", {}).get("execs") == 1)
        running = {name: (await c.call("_gateway-trio/status"))["running"] for name, c in clients.items()}
        assert running["cid"] == [], "it is not his"
        assert running["ann"] == running["bob"]
        (exec_,) = running["ann"]
        assert (exec_["name"], exec_["by"], exec_["state"]) == ("sleeper", "bob", "running")
        await clients["ann"].call("_gateway-trio/kill", {"id": exec_["id"]})
        assert (await clients["bob"].answer(id_))["status"] == "killed"
        await watching.until(lambda f: f.get("params", {}).get("execs") == 0 and told(watching)[-2][2] == 1)


async def test_the_status_says_when_it_started():
    async with acp_lab() as lab:
        client = await lab.acp()
        assert (await client.call("_gateway-trio/status"))["started"] == lab.gateway.started > 0


async def test_the_library_asks_for_counts_and_can_stop_an_exec():
    config = Config(quick_commands={"sleeper": SLEEPER})
    async with acp_lab(config) as lab:
        stop = trio.Event()
        async with connect("ws://localhost", open_stream=lab.listener.connect, counts=True) as client:
            async with trio.open_nursery() as nursery:

                async def stop_it():
                    async for phase in client.phases():
                        if phase.execs == 1:
                            stop.set()
                            return

                nursery.start_soon(stop_it)
                facts = await client.exec("sleeper", stop=stop)
            assert facts.status == "cancelled"
            assert "[" not in facts.output, "what people are told of the end is no output"
