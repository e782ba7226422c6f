"""`gateway-trio sessions` as people and scripts run it: real processes on both sides."""

import json
import os
import signal
import stat
import subprocess
import sys
from functools import partial

import pytest
import trio

from ctl import environment
from gateway_trio.ctl.outlet import file_outlet
from harness import PATIENCE, Program
from long_session import ID, fill
from terminal import Terminal
from test_ctl_process import TOKENS

CONFIG = """
[agent]
words_per_second = 1000

[quick_commands.up]
type = "exec"
command = "echo up for long"
role = "user"

[quick_commands.secret]
type = "exec"
command = "echo for admins alone; exit 7"
"""

#: Of the long session: enough for a bar, and for more than the client's reader holds.
EVENTS = 5000


def arguments(*args):
    return [sys.executable, "-m", "gateway_trio", "sessions", *args]


def run(program, *args, token=None, **more):
    """Run it to its end; return the code, stdout and stderr."""
    done = subprocess.run(
        arguments(*args), env=environment(program, token, **more), capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=3 * PATIENCE,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def lines_of(text):
    """Return the events of an export, which must be whole."""
    first, *events, last = map(json.loads, text.splitlines())
    assert (first["kind"], first["format"], last["kind"], last["events"]) == ("session", 1, "end", len(events))
    return events


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A gateway with a session `talk` of somebody's chat, and a long one."""
    directory = tmp_path_factory.mktemp("gateway")
    path = directory / "gateway.db"
    trio.run(partial(fill, path, EVENTS))
    with Program(directory, f"{CONFIG}\n[store]\npath = {json.dumps(str(path))}\n") as program:
        with program.chat("talk") as chat:
            assert chat.ask("hello \x1b[31mthere") == "hello \x1b[31mthere"
            assert chat.ask("/up") == "up for long\n"
            assert "[exit code 7" in chat.ask("/secret")
        yield program


def test_a_list_is_a_table_or_json(program):
    code, out, err = run(program, "list")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["name", "id", "events"]
    assert any(line.split() == [ID, str(EVENTS)] for line in out.splitlines())
    (talk,) = [line.split() for line in out.splitlines() if line.startswith("talk ")]
    code, out, _ = run(program, "list", "--json")
    listed = {session["id"]: session for session in json.loads(out)["sessions"]}
    assert listed[ID] == {"id": ID, "name": None, "last": EVENTS, "busy": False}
    assert listed[talk[1]]["name"] == "talk"
    assert listed[talk[1]]["last"] == int(talk[2])


def test_a_session_is_shown_as_a_person_reads_it(program):
    code, out, err = run(program, "show", "talk")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:4] == ["> hello [31mthere", "hello [31mthere", "> /up", "up for long"]
    assert lines[4].startswith("· exit code 0 after ")
    assert lines[5:7] == ["> /secret", "for admins alone"]
    assert lines[7].startswith("[exit code 7 after ")
    assert len(lines) == 8


def test_an_export_has_every_event_whole(program):
    code, out, err = run(program, "export", "talk")
    assert (code, err) == (0, "")
    assert out.isascii(), "nothing in it is an instruction to a terminal"
    events = lines_of(out)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {"kind": "answer", "text": "hello \x1b[31mthere", "seq": 4, "owner": events[3]["owner"]} in events
    ended = [event for event in events if event["kind"] == "exec" and event["state"] == "completed"]
    assert [event["facts"]["exitCode"] for event in ended] == [0, 7]
    assert run(program, "export", json.loads(out.splitlines()[0])["id"])[1] == out, "by its id too"


def test_a_long_one_goes_into_a_file_with_a_bar(program, tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text("before")
    env = environment(program)
    with Terminal("sessions", "export", ID, "--output", str(path), env=env) as terminal:
        terminal.until(f"/{EVENTS}")
        terminal.until(f"{EVENTS} events of {ID}")
        assert terminal.leave() == 0
    assert path.stat().st_mode & 0o777 == 0o600
    events = lines_of(path.read_text())
    assert [event["seq"] for event in events] == list(range(1, EVENTS + 1))
    assert os.listdir(tmp_path) == ["long.jsonl"]
    code, out, err = run(program, "export", ID)
    assert (code, out, err) == (0, path.read_text(), ""), "without a terminal there is no bar"


def test_what_fails_leaves_what_was_there(program, tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("before")
    code, out, err = run(program, "export", "nobody", "--output", str(path))
    assert (code, out) == (1, "")
    assert "no session 'nobody'" in err
    code, out, err = run(program, "export", "talk", "--output", str(tmp_path / "none" / "out.jsonl"))
    assert (code, out) == (73, "")
    assert "cannot be written" in err
    code, _, err = run(program, "export", "talk", "--url", "ws://127.0.0.1:1", "--output", str(path))
    assert code == 69
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_one_that_is_ended_in_the_middle_leaves_nothing(program, tmp_path):
    """Nobody reads the pipe that its terminal would be, so it stands in the middle when it is ended."""
    with subprocess.Popen(
        arguments("export", ID), env=environment(program), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline().startswith(b'{"kind": "session"')
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
        assert b"nothing was changed" in process.stderr.read()
        assert b'"kind": "end"' not in process.stdout.read()


class Stop(Exception):
    pass


async def test_a_file_is_there_only_when_it_is_complete(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(Stop):
        async with file_outlet(path) as out:
            await out.write("x" * 200_000)
            assert len(os.listdir(tmp_path)) == 1
            raise Stop
    assert os.listdir(tmp_path) == []
    with trio.CancelScope() as scope:
        async with file_outlet(path) as out:
            await out.write("x")
            scope.cancel()
    assert os.listdir(tmp_path) == []
    async with file_outlet(path) as out:
        await out.write("é" * 100_000)
        assert not path.exists()
    assert path.read_text() == "é" * 100_000


async def test_what_is_no_file_is_written_to_and_stays(tmp_path):
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    link.symlink_to(target)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for path in (pipe, link):
            async with file_outlet(path) as out:
                await out.write("é")
        assert os.read(reader, 100) == "é".encode()
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert (link.readlink(), target.read_text()) == (target, "é")
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe", "target"]


def test_what_reads_no_further_ends_it_quietly(program):
    done = subprocess.run(
        ["/bin/sh", "-c", '"$@" | head -n 1', "sh", *arguments("show", ID)],
        env=environment(program), capture_output=True, text=True, timeout=3 * PATIENCE,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("> question 0\n", "")


def test_a_chats_names_are_names_here(program, tmp_path):
    more = {"XDG_STATE_HOME": str(tmp_path)}
    chat = [sys.executable, "-m", "gateway_trio", "chat", "--session", "my notes"]
    env = environment(program, **more)
    done = subprocess.run(
        chat, env=env, input="written down\n", capture_output=True, text=True, timeout=3 * PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert "my notes" in run(program, "list", **more)[1]
    assert run(program, "show", "my notes", **more) == (0, "> written down\nwritten down\n", "")
    assert run(program, "show", "my notes")[0] == 1, "the gateway has no such name"


def test_who_may_see_what(tmp_path):
    with Program(tmp_path, CONFIG + TOKENS) as program:
        for name in ("ann", "bob"):
            headers = {"Authorization": f"Bearer token-of-{name}"}
            with program.chat("main", additional_headers=headers) as chat:
                chat.ask(f"of {name}")
        assert run(program, "show", "main", token="token-of-bob")[1] == "> of bob\nof bob\n"
        code, out, err = run(program, "show", "main", token="token-of-ann")
        assert (code, out) == (1, ""), "an admin sees both, and has to say which"
        assert "several" in err
        listed = json.loads(run(program, "list", "--json", token="token-of-ann")[1])["sessions"]
        assert len(listed) == 2
        shown = {run(program, "show", info["id"], token="token-of-ann")[1] for info in listed}
        assert shown == {"> of ann\nof ann\n", "> of bob\nof bob\n"}
        assert run(program, "list")[0] == 77
        assert run(program, "list", token="token-of-nobody")[0] == 77


def test_what_is_hidden_from_a_user_is_no_gap_to_an_export(tmp_path):
    """An admin's command in a user's session: the user's export ends all the same, and does not tell of it."""
    with Program(tmp_path, CONFIG + TOKENS) as program:
        bob = {"Authorization": "Bearer token-of-bob"}
        ann = {"Authorization": "Bearer token-of-ann"}
        with program.chat("main", additional_headers=bob) as chat:
            chat.ask("hello")
        listed = json.loads(run(program, "list", "--json", token="token-of-bob")[1])["sessions"]
        with program.acp(additional_headers=ann) as client:
            client.call("session/resume", {"sessionId": listed[0]["id"], "cwd": "/"})
            client.prompt(listed[0]["id"], "/secret")
        code, out, _ = run(program, "export", "main", token="token-of-bob")
        assert code == 0
        assert "for admins" not in out
        assert [event["seq"] for event in lines_of(out)] == [1, 2, 3, 4, 5]
        assert json.loads(out.splitlines()[-1])["last"] > 5


@pytest.mark.parametrize("args", [["show"], ["export"], ["list", "x"], ["export", "x", "--json"], ["nope"]])
def test_a_wrong_command_line_is_2(args):
    assert run(None, *args)[0] == 2
