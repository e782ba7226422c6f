"""`gateway-trio ctl` without its process: where the gateway is, what is written, and its verbs on one in memory."""

import io
import json

import pytest
import trio

from doors import Door
from gateway_trio.client import Closed, Lost, Refused, Unauthorized, Unreachable, connect
from gateway_trio.client.target import find_target
from gateway_trio.config import ConfigError, load_server
from gateway_trio.core.waits import Outcome, Seen
from gateway_trio.ctl import verbs
from gateway_trio.ctl.run import Stop, _explain
from gateway_trio.ctl.screen import Screen
from gateway_trio.testing import ScriptedAgent
from memory import acp_lab

# --- where ---


def find_url(*args):
    return find_target(*args)[0]


def config(tmp_path, server, mode=0o600):
    path = tmp_path / "gateway.toml"
    path.write_text(server)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("", "ws://127.0.0.1:8765"),
        ("[server]\nport = 99", "ws://127.0.0.1:99"),
        ('[server]\nhost = "0.0.0.0"', "ws://127.0.0.1:8765"),
        ('[server]\nhost = "::"', "ws://[::1]:8765"),
        ('[server]\nhost = "::1"', "ws://[::1]:8765"),
        ('[server]\nhost = "10.1.2.3"', "ws://10.1.2.3:8765"),
        ('[server]\nhost = "gateway.example"', "ws://gateway.example:8765"),
        ('[[auth.tokens]]\nname = "a"\nrole = "admin"\nenv = "NOT_SET_HERE"', "ws://127.0.0.1:8765"),
    ],
)
def test_host_and_port_come_from_the_config(tmp_path, server, url):
    assert find_url(None, config(tmp_path, server), {"GATEWAY_TRIO_URL": "ws://other"}) == url


def test_an_option_comes_before_the_config_and_that_before_the_environment(tmp_path):
    path = config(tmp_path, "")
    assert find_url("ws://mine", path, {"GATEWAY_TRIO_URL": "ws://other"}) == "ws://mine"
    assert find_url(None, None, {"GATEWAY_TRIO_URL": "ws://other"}) == "ws://other"
    assert find_url(None, None, {}) == "ws://127.0.0.1:8765"
    assert find_url(None, None, {"GATEWAY_TRIO_URL": ""}) == "ws://127.0.0.1:8765"


@pytest.mark.parametrize(
    ("server", "mode", "path"),
    [
        ("[server]\nport = 0", 0o600, "server.port"),
        ("[server]\nport = 'x'", 0o600, "server.port"),
        ("[server", 0o600, "gateway.toml"),
        ("server = 3", 0o600, "server"),
        ("", 0o666, "gateway.toml"),
    ],
)
def test_a_config_that_says_no_address_is_refused(tmp_path, server, mode, path):
    with pytest.raises(ConfigError) as caught:
        find_url(None, config(tmp_path, server, mode), {})
    assert [fault.path.rpartition("/")[2] for fault in caught.value.faults] == [path]
    with pytest.raises(ConfigError, match="No such file"):
        load_server(tmp_path / "missing.toml")


# --- what is written ---


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Pad:
    """A screen, and what was written on it."""

    def __init__(self, *, as_json=False, out=None):
        self.out, self.err = out or io.StringIO(), io.StringIO()
        self.screen = Screen(as_json=as_json, out=self.out, err=self.err)

    @property
    def object(self):
        return json.loads(self.out.getvalue())


def test_a_pipe_gets_output_as_it_is_and_a_terminal_what_is_harmless():
    text = "one\x1b[2Jtwo\x07\n\tthree"
    pipe, terminal = Pad(), Pad(out=Terminal())
    for pad in (pipe, terminal):
        pad.screen.output(text)
    assert pipe.out.getvalue() == text
    assert terminal.out.getvalue() == "one[2Jtwo\n\tthree\n"
    empty = Pad(out=Terminal())
    empty.screen.output("")
    assert empty.out.getvalue() == ""


def test_with_json_there_is_one_object_also_for_an_error():
    pad = Pad(as_json=True)
    pad.screen.result({"a": 1}, "said")
    assert (pad.object, pad.err.getvalue()) == ({"a": 1}, "")
    pad = Pad(as_json=True)
    pad.screen.failure({"reason": "x"}, "said")
    assert (pad.object, pad.err.getvalue()) == ({"error": {"reason": "x"}}, "")
    pad = Pad(as_json=True)
    pad.screen.table({"phase": "open"}, [("phase", "open")])
    assert pad.object == {"phase": "open"}


def test_without_json_errors_go_to_stderr_and_are_harmless():
    pad = Pad()
    pad.screen.failure({"reason": "x"}, "what\x1b[31m it was")
    assert (pad.out.getvalue(), pad.err.getvalue()) == ("", "gateway-trio: what[31m it was\n")
    pad.screen.result({}, "done\x1b[H")
    assert pad.out.getvalue() == "done[H\n"


def test_what_a_terminal_cannot_show_is_no_fault():
    poor = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    pad = Pad(out=poor)
    pad.screen.table({}, [("reason operator", "für später")])
    pad.screen.output("grüße")
    poor.seek(0)
    assert poor.read().split() == ["reason", "operator", "f?r", "sp?ter", "gr??e"]


def test_a_table_is_not_folded_where_nothing_shows_lines_and_holds_no_markup():
    pad = Pad()
    pad.screen.table({}, [("phase", "open"), ("reason operator", "[red]" + "long " * 100)])
    lines = [line.rstrip() for line in pad.out.getvalue().splitlines()]
    assert lines == ["phase            open", "reason operator  [red]" + ("long " * 100).rstrip()]


def test_progress_is_a_line_a_change_where_there_is_no_terminal():
    pad = Pad()
    with pad.screen.progress() as shown:
        assert str(shown.line()) == ""
        for turns in (2, 2, 1):
            shown.show(Seen("draining", ["operator"], turns, 0))
        shown.show(Seen("cancelling", ["restart"], 0, 0, left=12.0))
    lines = [line.partition(" s  ")[2] for line in pad.err.getvalue().splitlines()]
    assert lines == [
        "draining (operator): 2 turns, 0 execs",
        "draining (operator): 1 turn, 0 execs",
        "cancelling (restart): 0 turns, 0 execs, at most 12 s left",
    ]
    assert pad.out.getvalue() == ""


# --- what an error is ---


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (Refused("no", data={"reason": "forbidden"}), 77, "forbidden"),
        (Refused("no", data={"reason": "busy", "retryable": True, "retryAfterMs": 5}), 75, "busy"),
        (Refused("no"), 1, "refused"),
        (Unauthorized("who?"), 77, "unauthorized"),
        (Closed("revoked", code=4501), 77, "unauthorized"),
        (Closed("policy", code=1008), 77, "unauthorized"),
        (Closed("gone", code=1012), 69, "lost"),
        (Lost("broke"), 69, "lost"),
        (Unreachable("nobody", status=503), 69, "unreachable"),
    ],
)
def test_each_error_has_its_code_and_reason(error, code, reason):
    found = _explain(error)
    assert found[:2] == (code, reason)
    json.dumps(found[2])


# --- the verbs ---


async def do(verb, client, *, as_json=True, stop=None):
    pad = Pad(as_json=as_json)
    code = await verb.do(client, pad.screen, stop or Stop())
    return code, pad


def to(lab, **more):
    return connect("ws://localhost", open_stream=lab.listener.connect, counts=True, **more)


async def until(client, test):
    async for phase in client.phases():
        if test(phase):
            return phase
    return None


async def test_a_drain_with_wait_ends_with_the_last_turn_and_says_the_seconds(autojump_clock):
    async with acp_lab(agent=ScriptedAgent({"two": [2.0], "five": [5.0]})) as lab, to(lab) as client:
        chatting = await lab.acp()
        for words in ("two", "five"):
            await chatting.ask_prompt(await chatting.new_session(), words)
        await until(client, lambda phase: phase.turns == 2)
        code, pad = await do(verbs.drain("a look", wait=True), client)
        assert (code, pad.object["outcome"]) == (0, "drained")
        assert pad.object["seconds"] == pytest.approx(5, abs=0.01)
        said = [line.partition(" s  ")[2] for line in pad.err.getvalue().splitlines()]
        assert said == [f"draining (operator): {turns}, 0 execs" for turns in ("2 turns", "1 turn", "0 turns")]
        assert lab.gateway.status()["asked"]["operator"]["why"] == "a look"
        assert lab.gateway.phase.value == "draining", "an operator's drain has no end of its own"


async def test_a_drain_that_somebody_takes_back_ends_the_wait(autojump_clock):
    async with acp_lab(agent=ScriptedAgent({"long": [100.0]})) as lab, to(lab) as client:
        chatting = await lab.acp()
        await chatting.ask_prompt(await chatting.new_session(), "long")
        await until(client, lambda phase: phase.turns == 1)

        async def undrain_later():
            await trio.sleep(3)
            lab.gateway.undrain()

        lab.nursery.start_soon(undrain_later)
        code, pad = await do(verbs.drain("", wait=True), client)
        assert (code, pad.object["error"]["reason"]) == (1, "taken_back")
        assert pad.object["error"]["seconds"] == pytest.approx(3, abs=0.01)


async def test_a_shutdown_under_the_wait_for_a_drain_still_ends_it(autojump_clock):
    async with acp_lab(agent=ScriptedAgent({"long": [100.0]})) as lab, to(lab) as client:
        chatting = await lab.acp()
        await chatting.ask_prompt(await chatting.new_session(), "long")
        await until(client, lambda phase: phase.turns == 1)

        async def shut_down():
            await trio.sleep(1)
            lab.gateway.drain("shutdown", by="a test", grace_seconds=4)

        lab.nursery.start_soon(shut_down)
        code, pad = await do(verbs.drain("", wait=True), client)
        assert (code, pad.object["outcome"]) == (0, "drained")
        assert pad.object["seconds"] == pytest.approx(5, abs=0.1)


async def test_a_restart_with_wait_ends_when_another_process_is_open(autojump_clock, nursery):
    door = Door(nursery)
    await door.serve()
    before = door.gateway

    async def supervise():
        await before.closed.wait()
        door.listener = None
        await trio.sleep(7)
        await door.serve()
        door.gateway.drain("operator", by="somebody")  # it is there, and not open yet
        await trio.sleep(20)
        door.gateway.undrain()

    nursery.start_soon(supervise)
    with trio.fail_after(200):
        async with door.connect(counts=True) as client:
            code, pad = await do(verbs.restart(wait=True), client)
    assert (code, pad.object["outcome"]) == (0, "back")
    assert before.report.reason == "restart"
    assert door.gateway is not before
    assert pad.object["seconds"] >= 27
    assert "draining (operator)" in pad.err.getvalue()


async def test_a_lost_connection_alone_is_no_restart(autojump_clock, nursery):
    """It comes back to the same process, which still waits for a turn; then the restart is taken back."""
    door = Door(nursery)
    await door.serve(agent=ScriptedAgent({"long": [15.0]}))

    async def meddle():
        await trio.sleep(1)
        for connection in door.gateway.connections:
            connection.nursery.cancel_scope.cancel()
        await trio.sleep(10)
        door.gateway.undrain()

    with trio.fail_after(200):
        async with door.connect(counts=True) as chatting, door.connect(counts=True) as client:
            (await chatting.new_session()).prompt("long")
            await until(client, lambda phase: phase.turns == 1)
            nursery.start_soon(meddle)
            code, pad = await do(verbs.restart(wait=True), client)
            assert client.losses == 1
    assert (code, pad.object["error"]["reason"]) == (1, "taken_back")
    assert pad.object["error"]["seconds"] == pytest.approx(11, abs=0.1)


async def test_a_drain_does_not_outlive_its_process(autojump_clock, nursery):
    door = Door(nursery)
    await door.serve(agent=ScriptedAgent({"long": [100.0]}))
    before = door.gateway
    with trio.fail_after(200):
        async with door.connect(counts=True) as chatting, door.connect(counts=True) as client:
            (await chatting.new_session()).prompt("long")
            await until(client, lambda phase: phase.turns == 1)

            async def die_and_come_back():
                await trio.sleep(2)
                await door.serve()
                for connection in before.connections:
                    connection.nursery.cancel_scope.cancel()  # as where the process was killed

            nursery.start_soon(die_and_come_back)
            code, pad = await do(verbs.drain("", wait=True), client)
    assert (code, pad.object["error"]["reason"]) == (1, Outcome.RESTARTED.value)
    before.drain("shutdown", grace_seconds=0)


async def test_a_restart_that_becomes_a_shutdown_is_not_waited_for(autojump_clock):
    async with acp_lab(agent=ScriptedAgent({"long": [100.0]})) as lab, to(lab) as client:
        chatting = await lab.acp()
        await chatting.ask_prompt(await chatting.new_session(), "long")
        await until(client, lambda phase: phase.turns == 1)

        async def shut_down():
            await trio.sleep(1)
            lab.gateway.drain("shutdown", by="a test")

        lab.nursery.start_soon(shut_down)
        code, pad = await do(verbs.restart(wait=True), client)
        assert (code, pad.object["error"]["reason"]) == (1, "shut_down")


async def test_undrain_says_what_is_left_and_whether_it_came_too_late(autojump_clock):
    async with acp_lab(agent=ScriptedAgent({"long": [100.0]})) as lab, to(lab) as client:
        chatting = await lab.acp()
        await chatting.ask_prompt(await chatting.new_session(), "long")
        await until(client, lambda phase: phase.turns == 1)
        for reason in ("operator", "backend"):
            lab.gateway.drain(reason)
        code, pad = await do(verbs.undrain("operator"), client, as_json=False)
        assert (code, pad.out.getvalue()) == (0, "still draining because of backend\n")
        code, pad = await do(verbs.undrain("backend"), client, as_json=False)
        assert (code, pad.out.getvalue()) == (0, "open\n")
        lab.gateway.drain("shutdown")
        code, pad = await do(verbs.undrain("shutdown"), client)
        assert (code, pad.object["error"]["reason"]) == (1, "too_late")


async def test_a_drain_of_a_gateway_that_goes_down_says_where_it_is(autojump_clock):
    async with acp_lab(agent=ScriptedAgent({"long": [100.0]})) as lab, to(lab) as client:
        chatting = await lab.acp()
        await chatting.ask_prompt(await chatting.new_session(), "long")
        await until(client, lambda phase: phase.turns == 1)
        lab.gateway.drain("shutdown", by="a test")
        code, pad = await do(verbs.drain("", wait=False), client, as_json=False)
        assert code == 0
        assert pad.out.getvalue().startswith("draining because of operator, shutdown: ")
