"""Case 70: the disk is full. Prompts and commands are refused, the process lives, and takes them again when there is
room; what was told meanwhile is then stored. A small disk of its own, in memory, where a test may mount one.
"""

import contextlib
import json
import subprocess
from pathlib import Path

import pytest
from processes import wait_until
from restarts import NOTING, begin, come_back, end, on_disk, rows, states, until_stored

from harness import Program, Refused

MEGABYTES = 8

CONFIG = """
[quick_commands.quick]
type = "exec"
command = "echo quick >> {folder}/began; echo done"

[quick_commands.gated]
type = "exec"
command = "echo gated >> {folder}/began; echo begun; while ! test -e {folder}/open; do sleep 0.05; done; echo done"
"""


@pytest.fixture
def disk(tmp_path):
    """A file system with little room."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m,mode=700", "none", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@contextlib.contextmanager
def full(disk: Path):
    """Leave no room, to the last byte."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as filler:
        for size in (64 * 1024, 1):
            with contextlib.suppress(OSError):
                while True:
                    filler.write(b"x" * size)
    try:
        yield
    finally:
        path.unlink()


def refusals(client, session, prompt):
    """Prompt until that is refused: what SQLite has reserved already still takes some. Return the refusal."""
    for _ in range(1000):
        try:
            client.prompt(session, prompt)
        except Refused as refused:
            return refused
    raise AssertionError("the disk is full, and everything is accepted")


def test_case_70_a_full_disk_refuses_and_lives_and_stores_later_what_it_told(disk, tmp_path):
    began = tmp_path / "began"
    config = on_disk(disk, CONFIG.format(folder=tmp_path))
    with Program(tmp_path, config, script=NOTING) as program, program.acp() as client, program.acp() as other:
        running, session = client.new_session(), client.new_session()
        other.call("session/resume", {"sessionId": running, "cwd": "/"})
        slow = begin(other, running, key="slow")
        once = client.ask("_gateway-trio/exec", {"name": "gated"})
        other.ask_prompt(running, "/gated", key="gated")
        other.until(lambda _: "begun" in other.text())
        wait_until(lambda: began.read_text().split() == ["gated"] * 2)
        with full(disk):
            refused = refusals(client, session, "x" * 50_000)
            assert (refused.code, refused.reason) == (-32014, "store_unavailable")
            assert (refused.data["admitted"], refused.data["retryable"]) == (False, True)
            noted = (tmp_path / "turns").read_text()
            for prompt in ("hello", "/quick"):
                with pytest.raises(Refused) as caught:
                    client.prompt(session, prompt, key=prompt)
                assert caught.value.reason == "store_unavailable"
            assert (tmp_path / "turns").read_text() == noted, "no agent was called"
            with pytest.raises(Refused) as caught:
                client.call("session/new", {"cwd": "/", "mcpServers": []})
            assert caught.value.reason == "store_unavailable"
            # It lives, and what it has can be read.
            assert client.call("_gateway-trio/status")["phase"] == "open"
            assert program.get("/readyz")[0] == 200
            late, found = come_back(program, session)
            assert found["recovered"] is True
            late.close()
            # What runs ends, and that is told.
            (tmp_path / "open").touch()
            other.until(lambda _: "completed" in states(other, "exec")["gated"])
            assert client.answer(once)["exitCode"] == 0
            other.notify("session/cancel", {"sessionId": running})
            assert other.answer(slow) == {"stopReason": "cancelled"}
            assert began.read_text().split() == ["gated"] * 2
        # There is room again.
        assert client.prompt(session, "hello", key="hello")["stopReason"] == "end_turn"
        assert client.prompt(session, "/quick", key="/quick")["_meta"]["gateway-trio"]["exitCode"] == 0
        wait_until(lambda: rows(disk, "SELECT count(*) FROM works WHERE state IN ('queued', 'running')") == [(0,)])
        wait_until(lambda: rows(disk, "SELECT count(*) FROM execs WHERE facts IS NULL") == [(0,)])
        end(program, "killed")
    with Program(tmp_path, config, script=NOTING) as program:
        assert "unknown outcome" not in program.text
        client, _ = come_back(program, running)
        with client:
            assert states(client) == {"slow": ["queued", "running", "cancelled"]}
            assert states(client, "exec") == {"gated": ["queued", "running", "completed"]}
            assert client.text() == "half begun\ndone\n"
    assert began.read_text().split() == ["gated", "gated", "quick"]
    assert [json.loads(line)[0] for line in (tmp_path / "turns").read_text().splitlines()].count("hello") == 1


def test_case_70_what_was_told_while_the_disk_was_full_goes_to_it_with_its_text(disk, tmp_path):
    """Killed right after the next prompt is accepted: that one stored the outcome, and so the text before it."""
    config = on_disk(disk, CONFIG.format(folder=tmp_path))
    with Program(tmp_path, config, script=NOTING) as program, program.acp() as client, program.acp() as other:
        session, another = client.new_session(), other.new_session()
        gated = client.ask_prompt(session, "/gated", key="gated")
        until_stored(disk, "begun")
        with full(disk):
            refusals(other, another, "x" * 50_000)
            (tmp_path / "open").touch()
            assert client.answer(gated)["_meta"]["gateway-trio"]["exitCode"] == 0
        assert client.prompt(session, "hello")["stopReason"] == "end_turn"
        end(program, "killed")
    with Program(tmp_path, config, script=NOTING) as program:
        client, _ = come_back(program, session)
        with client:
            assert states(client, "exec") == {"gated": ["queued", "running", "completed"]}
            assert client.text() == "begun\ndone\nto hello"


def test_case_70_a_gateway_that_goes_down_while_the_disk_is_full_ends_in_time(disk, tmp_path):
    config = on_disk(disk)
    with Program(tmp_path, config, script=NOTING) as program, program.acp() as client:
        session = client.new_session()
        another = client.new_session()
        slow = begin(client, session, key="slow")
        with full(disk):
            refusals(client, another, "x" * 50_000)
            program.signal()
            with pytest.raises(Refused) as caught:
                client.answer(slow)
            assert caught.value.data["admitted"] is True
            assert client.code == 1012
            assert program.wait() == 0
    with Program(tmp_path, config, script=NOTING) as program:
        client, _ = come_back(program, session)
        with client:
            assert states(client)["slow"] == ["queued", "running", "interrupted"]
