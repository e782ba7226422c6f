"""The log: what each line says of whose work it is, and that nothing fills it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from raw import Raw, request_head

from gateway_trio.config import Config
from gateway_trio.core.commands import ExecCommand, Role
from gateway_trio.core.log_bounds import LINES
from gateway_trio.testing import AcpError, ScriptedAgent
from harness import Program, Refused
from memory import acp_lab

FAILING = Path(__file__).parent / "cases" / "programs" / "logging_agent.py"


def lines(program, event):
    """Return the lines of an event, parsed."""
    found = [json.loads(line) for line in program.log if line.startswith("{")]
    return [line for line in found if line["event"] == event]


def names_of(record):
    return {
        name: getattr(record, name) for name in ("session", "turn", "exec", "principal") if hasattr(record, name)
    }


# --- whose work it is ------------------------------------------------------------------------------------


async def test_each_line_of_a_turn_says_whose_it_is(autojump_clock, caplog):
    """Also of one that another turn, of somebody else, let start."""
    async with acp_lab(agent=ScriptedAgent({"a": [1.0, ValueError("a")], "b": [ValueError("b")]})) as lab:
        client = await lab.acp()
        session = await client.new_session()
        first = await client.ask_prompt(session, "a")
        second = await client.ask_prompt(session, "b")
        for id_ in (first, second):
            with pytest.raises(AcpError):
                await client.answer(id_)
        failed = [record for record in caplog.records if record.getMessage() == "agent failed"]
        assert [record.session for record in failed] == [session, session]
        assert [record.principal for record in failed] == ["local", "local"]
        queued = [
            u["_meta"]["gateway-trio"]["turn"]
            for u in client.updates("session_info_update")
            if "turn" in u["_meta"]["gateway-trio"]
        ]
        ids = list(dict.fromkeys(turn["id"] for turn in queued))
        assert [record.turn for record in failed] == ids
        assert not any(hasattr(record, "exec") for record in failed)


async def test_each_line_of_an_exec_says_whose_it_is(caplog):
    caplog.set_level("INFO")
    command = ExecCommand("hello", command="echo hello", role=Role.USER)
    async with acp_lab(Config(quick_commands={"hello": command})) as lab:
        client = await lab.acp()
        session = await client.new_session()
        await client.prompt(session, "/hello")
        await client.call("_gateway-trio/exec", {"name": "hello"})
    inside, outside = [record for record in caplog.records if record.getMessage() == "exec"]
    assert names_of(inside) == {"session": session, "exec": inside.id, "principal": "local"}
    assert names_of(outside) == {"exec": outside.id, "principal": "local"}


def test_what_an_agents_own_library_says_belongs_to_its_turn(tmp_path):
    with Program(tmp_path, script=FAILING) as program, program.acp() as client:
        session = client.new_session()
        with pytest.raises(Refused):
            client.prompt(session, "one")
        program.wait_log('"agent failed"')
        (said,) = lines(program, "number one")
        (failed,) = lines(program, "agent failed")
        assert said["logger"] == "some.library"
        for name in ("session", "turn", "principal"):
            assert said[name] == failed[name]
        assert "it broke one" in failed["exception"]
        assert said["session"] == session


# --- nothing fills it ------------------------------------------------------------------------------------


def told(program, event):
    """Return how many lines there are of an event, and how many are said to have been left out."""
    written = lines(program, event)
    later = [line for line in lines(program, "left out") if line["of"].endswith(f": {event}")]
    return len(written), sum(line.get("left_out", 0) for line in [*written, *later])


def test_refused_handshakes_do_not_fill_it(tmp_path):
    with Program(tmp_path) as program:
        for _ in range(4 * LINES):
            with Raw(program.port) as raw:
                raw.send(request_head(program.port, "/acp", Host="elsewhere.example"))
                assert raw.status() == 403
        program.signal()
        assert program.wait() == 0
        written, left_out = told(program, "refused")
        assert written + left_out == 4 * LINES
        assert left_out > 0


def test_failing_agents_do_not_fill_it_and_others_are_still_heard(tmp_path):
    with Program(tmp_path, script=FAILING) as program, program.acp() as client:
        session = client.new_session()
        count = 3 * LINES
        for number in range(count):
            with pytest.raises(Refused):
                client.prompt(session, f"number {number}")
        client.call("_gateway-trio/drain")
        program.wait_log('"draining"')
        program.signal()
        assert program.wait() == 0
        written, left_out = told(program, "agent failed")
        assert written + left_out == count
        assert left_out > 0
        drained = lines(program, "drained")
        assert len(drained) == 1, "one line a drain"
        assert "left_out" not in drained[0]
        # A library's lines are counted by their template, not by what was put into it.
        library = [line for line in program.log if '"number ' in line]
        assert len(library) < count


def test_a_line_is_not_long(tmp_path):
    with Program(tmp_path, script=FAILING) as program, program.acp() as client:
        with pytest.raises(Refused):
            client.prompt(client.new_session(), "x" * 500_000)
        line = program.wait_log('"agent failed"')
        assert "characters …" in json.loads(line)["exception"]
        assert max(map(len, program.log)) < 60_000


def test_on_a_terminal_a_traceback_shows_no_variables(tmp_path):
    program = """
from gateway_trio.log import configure, get_logger
configure()
try:
    secret = "local-" + "variable"
    raise ValueError("it broke " + "x" * 100000)
except ValueError:
    get_logger("test").exception("failed", why="y" * 100000)
"""
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        with subprocess.Popen([sys.executable, "-c", program], stderr=theirs) as run:
            os.close(theirs)
            said = b""
            try:
                while data := terminal.read(65536):
                    said += data
            except OSError:
                pass  # how a terminal says that its other end is closed
        assert run.returncode == 0
    assert b"it broke" in said
    assert b"Traceback" in said
    assert b"local-variable" not in said
    assert len(said) < 40_000
