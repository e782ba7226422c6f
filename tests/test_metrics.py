"""What `/metrics` says: in memory, that each counter moves for what it counts and for nothing else."""

import subprocess
import sys

import pytest
import trio

from gateway_trio import BackendRejected, BackendUnavailable
from gateway_trio.collector import Scrapes
from gateway_trio.config import BreakerConfig, Config, DrainConfig, ExecConfig
from gateway_trio.core.commands import ExecCommand, Role
from gateway_trio.testing import STUCK, AcpError, FailingStore, ScriptedAgent
from harness import Metrics
from memory import acp_lab

SLOW = {"slow": ["a", 1000.0], "stuck": ["a", STUCK]}


async def refused(asking):
    """Wait for an error and return it."""
    with pytest.raises(AcpError) as fault:
        await asking
    return fault.value


def metrics(lab):
    return Metrics(Scrapes(lab.gateway).text().decode())


async def test_at_rest_all_is_there_and_all_counters_are_zero(autojump_clock):
    async with acp_lab() as lab:
        found = metrics(lab)
        assert found.one("phase") == "open"
        assert found.all("drain_reason") == {}
        assert found.one("breaker_state") == "closed"
        for name in ("turns_total", "execs_total", "refusals_total", "http_refusals_total", "closes_total"):
            assert found.all(name) == {}
        for name in (
            "turns_running",
            "turns_waiting",
            "execs_running",
            "execs_waiting",
            "connections",
            "sessions",
        ):
            assert found(name) == 0
        assert ("gateway_trio_phase_remaining_seconds", ()) not in found.samples


async def test_names_are_as_prometheus_has_them(autojump_clock):
    async with acp_lab() as lab:
        for family in metrics(lab).families:
            assert family.documentation.endswith("."), family.name
            assert family.name.startswith(("gateway_trio_", "process_"))
            for sample in family.samples:
                assert not sample.name.endswith("_total") or family.type == "counter"
                assert family.type != "counter" or sample.name.endswith("_total")
                assert not ({"session", "principal", "turn", "exec", "path"} & set(sample.labels))


async def test_turns_count_by_their_outcome_with_how_long_they_ran(autojump_clock):
    scripts = SLOW | {"4 s": ["a", 4.0], "broken": [ValueError("x")], "rejected": [BackendRejected("no")]}
    async with acp_lab(agent=ScriptedAgent(scripts)) as lab:
        client = await lab.acp()
        session = await client.new_session()
        await client.prompt(session, "4 s")
        assert metrics(lab).all("turns_total") == {"completed": 1}
        for text in ("broken", "rejected"):
            await refused(client.prompt(session, text))
        assert metrics(lab).all("turns_total") == {"completed": 1, "failed": 2}
        running = await client.ask_prompt(session, "slow")
        waiting = await client.ask_prompt(session, "later")
        await client.until(lambda _: lab.gateway.turns.waiting)
        found = metrics(lab)
        assert (found("turns_running"), found("turns_waiting")) == (1, 1)
        await client.prompt(session, "/stop")
        for id_ in (running, waiting):
            assert (await client.answer(id_))["stopReason"] == "cancelled"
        found = metrics(lab)
        assert found.all("turns_total") == {"completed": 1, "failed": 2, "cancelled": 2}
        assert (found("turns_running"), found("turns_waiting")) == (0, 0)
        assert found("turn_seconds_count", outcome="cancelled") == 1, "the other one never ran"
        assert found("turn_seconds_sum", outcome="completed") == pytest.approx(4)
        assert found("turn_seconds_bucket", outcome="completed", le="2.5") == 0
        assert found("turn_seconds_bucket", outcome="completed", le="5.0") == 1
        assert found("turn_seconds_bucket", outcome="completed", le="+Inf") == 1


async def test_a_drain_counts_its_turns_and_its_time(autojump_clock):
    agent = ScriptedAgent(SLOW)
    config = Config(drain=DrainConfig(grace_seconds=7, cleanup_seconds=2))
    async with acp_lab(config, agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        await client.ask_prompt(session, "stuck")
        await client.until_state("running")
        lab.gateway.drain("operator")
        await trio.sleep(3)
        assert lab.gateway.undrain()
        lab.gateway.drain("shutdown")
        await trio.sleep(5)
        found = metrics(lab)
        assert found.one("phase") == "draining"
        assert found.all("drain_reason") == {"shutdown": 1}
        assert found("phase_remaining_seconds") == pytest.approx(2)
        await lab.gateway.closed.wait()
        found = metrics(lab)
        agent.release()
        assert found.one("phase") == "closed"
        assert found.all("turns_total") == {"interrupted": 1}
        assert found("agents_abandoned") == 1
        assert found.all("drains_total") == {"operator": 1, "shutdown": 1}
        assert found("phase_seconds_total", phase="draining") == pytest.approx(3 + 7)
        assert found("phase_seconds_total", phase="cancelling") == pytest.approx(2)
        assert found("closes_total", why="shutdown") == 1


async def test_the_breaker_shows_how_it_stands(autojump_clock):
    scripts = {"down": [BackendUnavailable("down")]}
    config = Config(breaker=BreakerConfig(failures=2, probe_seconds=5))
    agent = ScriptedAgent(scripts, probes=[[BackendUnavailable("still down")]])
    async with acp_lab(config, agent=agent) as lab:
        client = await lab.acp()
        session = await client.new_session()
        for _ in range(2):
            await refused(client.prompt(session, "down"))
        found = metrics(lab)
        assert (found.one("breaker_state"), found.one("drain_reason")) == ("open", "backend")
        await refused(client.prompt(session, "hi"))
        assert metrics(lab)("refusals_total", reason="draining") == 1
        await client.until(lambda f: f.get("method") == "_gateway-trio/phase" and len(agent.probed) == 2)
        assert metrics(lab).one("breaker_state") == "half-open"
        await client.prompt(session, "hi")
        found = metrics(lab)
        assert found.one("breaker_state") == "closed"
        assert found.all("drains_total") == {"backend": 1}


def command(name, text, **more):
    return ExecCommand(name, command=text, role=Role.USER, **more)


COMMANDS = [
    command("good", "true"),
    command("dies", "kill -9 $$"),
    command("late", "sleep 60", timeout_seconds=0.3),
    command("much", "yes"),
    command("waits", "echo on; exec sleep 60"),
    ExecCommand("nothing", argv=("/there/is/no/such/program",)),
]


@pytest.fixture
def quick():
    return Config(
        quick_commands={each.name: each for each in COMMANDS},
        exec=ExecConfig(max_running=1, max_waiting=1),
        drain=DrainConfig(exec_seconds=1),
    )


@pytest.mark.parametrize(
    ("text", "status", "ran"),
    [
        ("/good", "exited", 1),
        ("/dies", "signalled", 1),
        ("/late", "timeout", 1),
        ("/much", "output_limit", 1),
        ("/nothing", "spawn_failed", 0),
    ],
)
async def test_execs_count_by_their_status(quick, text, status, ran):
    async with acp_lab(quick) as lab:
        client = await lab.acp()
        await client.prompt(await client.new_session(), text)
        found = metrics(lab)
        assert found.all("execs_total") == {status: 1}
        assert found("exec_seconds_count") == ran
        assert found("exec_seconds_sum") > 0 or not ran


async def test_execs_that_others_end_count_too(quick):
    async with acp_lab(quick) as lab:
        client = await lab.acp()
        session = await client.new_session()

        async def start():
            before = client.text().count("on")
            id_ = await client.ask_prompt(session, "/waits")
            await client.until(lambda _: client.text().count("on") > before)
            return id_

        running = await start()
        waiting = await client.ask_prompt(session, "/good")
        await client.until(lambda _: lab.gateway.execs.waiting)
        fault = await refused(client.prompt(session, "/good"))
        found = metrics(lab)
        assert (found("execs_running"), found("execs_waiting")) == (1, 1)
        assert fault.reason == "busy"
        assert found("refusals_total", reason="busy") == 1
        await client.notify("$/cancel_request", {"requestId": running})
        await client.answer(running)
        await client.answer(waiting)
        assert metrics(lab).all("execs_total") == {"cancelled": 1, "exited": 1}
        running = await start()
        await client.call("_gateway-trio/kill", {"id": lab.gateway.execs.list()[0].id})
        await client.answer(running)
        await start()
        lab.gateway.drain("shutdown")
        await lab.gateway.closed.wait()
        assert metrics(lab).all("execs_total") == {"cancelled": 1, "exited": 1, "killed": 1, "deadline": 1}


async def test_refusals_count_by_their_reason(quick):
    async with acp_lab(quick, store=(store := FailingStore())) as lab:
        client = await lab.connect()
        await client.ask("session/new", {"cwd": "/", "mcpServers": []})
        await client.rejects(1)
        await client.send("{")
        await client.rejects(None)
        client.frames.clear()
        await client.initialize()
        session = await client.new_session()
        await refused(client.call("no/such"))
        await refused(client.prompt("s-of-nobody", "hi"))
        await refused(client.prompt(session, "/good words"))
        lab.gateway.drain()
        await refused(client.prompt(session, "hi"))
        lab.gateway.undrain()
        store.failing = True
        await refused(client.prompt(session, "hi"))
        await refused(client.prompt(session, "/good"))
        assert metrics(lab).all("refusals_total") == {
            "not_initialized": 1, "parse": 1, "method_not_found": 1, "unknown_session": 1, "usage": 1, "draining": 1,
            "store_unavailable": 2,
        }  # fmt: skip
        assert metrics(lab).all("execs_total") == metrics(lab).all("turns_total") == {}
        chat = await lab.chat()
        await chat.receive()
        store.failing = False


async def test_over_chat_they_count_as_well(quick):
    async with acp_lab(quick) as lab:
        chat = await lab.chat()
        await chat.send("/good words")
        await chat.receive()
        found = metrics(lab)
        assert found.all("refusals_total") == {"usage": 1}
        assert (found("connections"), found("sessions")) == (1, 1)


async def test_what_clients_do_makes_no_series(autojump_clock):
    async with acp_lab(agent=ScriptedAgent()) as lab:
        before = set(metrics(lab).samples)
        for number in range(5):
            client = await lab.acp()
            session = await client.new_session()
            await client.prompt(session, f"{number}")
            await refused(client.prompt(f"session {number}", "x"))
            await refused(client.call(f"method/{number}"))
            await client.prompt(session, f"/unknown-{number}")
        assert set(metrics(lab).samples) == before


async def test_two_gateways_have_their_own(autojump_clock):
    async with acp_lab() as one, acp_lab() as other:
        client = await one.acp()
        await client.prompt(await client.new_session(), "hi")
        assert metrics(one).all("turns_total") == {"completed": 1}
        assert metrics(other).all("turns_total") == {}


def test_prometheus_is_loaded_by_the_first_scrape_and_not_before():
    program = """
import sys
import trio
from gateway_trio import cli, process
from gateway_trio.testing import open_gateway

async def main():
    async with open_gateway() as lab:
        stream = await lab.listener.connect()
        assert "prometheus_client" not in sys.modules
        await stream.send_all(b"GET /metrics HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
        answer = b"".join([data async for data in stream])
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert "prometheus_client" in sys.modules

trio.run(main)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
