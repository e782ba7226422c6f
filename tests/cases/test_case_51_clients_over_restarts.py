"""Cases 44, 48 and 51 as clients see them: kills, drains, restarts in place and lost networks, with a store on disk.

The gateway is the program on one port with one file; the clients are the library and `gateway-trio chat`, which come
back by themselves.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from functools import partial

import pytest
import trio
from processes import wait_until

from ctl import environment, free_port
from gateway_trio.client import Away, Back, Lost, State, Text, connect
from gateway_trio.core.archive import Archive
from harness import PATIENCE, Program, ours_of
from long_session import ID, fill
from terminal import Terminal
from test_client_process import Proxy

LONG = " ".join(f"w{n}" for n in range(400))


def config(tmp_path, *, restart="exit"):
    return f"""
[server]
port = {free_port()}
restart = "{restart}"
[agent]
words_per_second = 20
[store]
path = {json.dumps(str(tmp_path / "gateway.db"))}
[drain]
grace_seconds = 0.2
[quick_commands.count]
type = "exec"
command = "echo \\"$1\\" >> {shlex.quote(str(tmp_path / "runs"))}; echo counted $1"
args = "text"
"""


class Gateway:
    """One gateway after another in the same place. Use it as a context manager."""

    def __init__(self, tmp_path, how="kill"):
        self.how = how
        self.store = tmp_path / "gateway.db"
        self._open = partial(Program, tmp_path, config(tmp_path, restart="exec" if how == "in place" else "exit"))
        self.program = self._open()
        self.url = f"ws://127.0.0.1:{self.program.port}"

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.program.__exit__(*exc)

    def down(self):
        """End it; what replaces itself is up again already."""
        if self.how == "in place":
            self.program.signal(signal.SIGUSR1)
            wait_until(lambda: self.program.text.count('"event": "open"') == self.lives + 1)
            return
        self.program.signal(signal.SIGKILL if self.how == "kill" else signal.SIGTERM)
        assert self.program.wait() == (-signal.SIGKILL if self.how == "kill" else 0)

    def up(self):
        if self.how != "in place":
            self.program.__exit__(None, None, None)
            self.program = self._open()

    def again(self):
        self.lives = self.program.text.count('"event": "open"')
        self.down()
        self.up()


class Told:
    """What a client is told of a session; the texts are put together from their pieces."""

    def __init__(self):
        self.texts: dict[int, str] = {}
        self.states: list[State] = []
        self.away = self.back = 0

    def take(self, update):
        match update:
            case Text(kind=kind, seq=seq, at=at, text=text) if kind != "prompt":
                before = self.texts.get(seq, "")
                assert at <= len(before), f"a hole: {update} after {before[-50:]!r}"
                self.texts[seq] = before[:at] + text
            case State():
                self.states.append(update)
            case Away():
                self.away += 1
            case Back():
                self.back += 1

    async def follow(self, updates):
        async for update in updates:
            self.take(update)


async def read(gateway, id_):
    """Return the records of a session. Its numbers have no gaps, but for messages in which nothing was said."""
    archive = Archive()
    async with connect(gateway.url) as client:
        with client.read(id_) as reading:
            found = [record async for update in reading for record in archive.take(update)]
    found += archive.end()
    numbers = [record["seq"] for record in found]
    assert numbers == sorted(set(numbers))
    assert set(range(1, reading.last + 1)) - set(numbers) == empty_messages(gateway.store)
    return found


def query(path, text):
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        return db.execute(text).fetchall()


def empty_messages(path):
    """Return those that were cut off before their first words were stored."""
    found = query(path, "SELECT number FROM events WHERE kind = 'message' AND length(text) = 0")
    return {number for (number,) in found}


async def until_said(prompt, word):
    async for update in prompt:
        if isinstance(update, Text) and word in update.text.split():
            return
    raise AssertionError(f"it ended without {word}")


async def until_state(prompt, name):
    async for update in prompt:
        if isinstance(update, State) and (update.state == name or update.ends):
            return


def until_stored(path, start, word):
    """Wait until a message that starts so has this word in the file: it is stored within about a second."""

    def stored():
        found = query(path, "SELECT CAST(text AS TEXT) FROM events WHERE kind = 'message'")
        return any(text.startswith(start) and word in text.split() for (text,) in found)

    wait_until(stored)


def outcomes(records):
    """Return how each key ended, in order."""
    return [
        (record["key"], record["state"])
        for record in records
        if record["kind"] in ("turn", "exec") and record["state"] not in ("queued", "running")
    ]


@pytest.mark.parametrize("how", ["kill", "drain", "in place"])
async def test_case_44_what_was_accepted_ends_once_whatever_becomes_of_the_gateway(tmp_path, how):
    """What ran is interrupted with its text, what waited runs once, and the client is told everything once."""
    with trio.fail_after(240), Gateway(tmp_path, how) as gateway:
        async with connect(gateway.url) as client, trio.open_nursery() as nursery:
            session = await client.new_session()
            told = Told()
            nursery.start_soon(told.follow, session.updates())
            expected = {}
            for round_ in range(2):
                slow = session.prompt(f"{round_} {LONG}")
                waiting = [session.prompt(f"waits {round_} {n}") for n in range(3)]
                count = session.prompt(f"/count {round_}")
                assert (await count.result()).facts.exit_code == 0
                await until_said(slow, "w5")
                await trio.to_thread.run_sync(until_stored, gateway.store, f"{round_} w0", "w5")
                await trio.to_thread.run_sync(gateway.again)
                outcome = await slow.result()
                assert (outcome.state, outcome.error.admitted) == ("interrupted", True)
                for prompt in waiting:
                    assert (await prompt.result()).state == "completed"
                expected |= {slow.key: "interrupted", count.key: "completed"}
                expected |= {prompt.key: "completed" for prompt in waiting}
            records = await read(gateway, session.id)
            nursery.cancel_scope.cancel()
        assert dict(outcomes(records)) == expected
        assert len(outcomes(records)) == len(expected), "none has two"
        answers = [record for record in records if record["kind"] == "answer"]
        asked = {record["owner"]: record["text"] for record in records if record["kind"] == "prompt"}
        for answer in answers:
            whole = asked[answer["owner"]]
            assert whole.startswith(answer["text"]), "what is kept of one that was cut is its beginning"
            assert answer["text"] == whole or "w1 w2" in answer["text"]
        assert sum(answer["text"] == asked[answer["owner"]] for answer in answers) == 6
        # And the client, over its connections, was told the same, each once.
        said = {record["seq"]: record["text"] for record in records if record["kind"] in ("answer", "output")}
        assert told.texts == said
        states = Counter(state.seq for state in told.states)
        numbers = {record["seq"] for record in records if record["kind"] in ("turn", "exec")}
        assert states == dict.fromkeys(numbers, 1)
        assert told.away == told.back == 2
        assert (tmp_path / "runs").read_text() == "0\n1\n", "nothing ran twice"


async def test_case_44_prompts_sent_while_it_is_down_are_sent_when_it_is_back(tmp_path):
    with trio.fail_after(120), Gateway(tmp_path) as gateway:
        async with connect(gateway.url) as client:
            session = await client.new_session()
            updates = session.updates()
            await trio.to_thread.run_sync(gateway.down)
            async for update in updates:
                if isinstance(update, Away):
                    break
            prompts = [session.prompt(f"while {n}") for n in range(5)]
            command = session.prompt("/count down")
            await trio.to_thread.run_sync(gateway.up)
            for prompt in prompts:
                assert (await prompt.result()).state == "completed"
            assert (await command.result()).facts.exit_code == 0
            records = await read(gateway, session.id)
            asked = [record["text"] for record in records if record["kind"] == "prompt"]
            assert sorted(asked) == sorted([*(f"while {n}" for n in range(5)), "/count down"])
    assert (tmp_path / "runs").read_text() == "down\n"


async def test_case_51_a_socket_that_is_gone_while_the_turn_goes_on_and_ends(tmp_path, nursery):
    """And the gateway is killed while nobody can reach it, so what comes in the end comes from the file."""
    with trio.fail_after(240), Gateway(tmp_path) as gateway:
        proxy = Proxy(gateway.program.port)
        await nursery.start(proxy.run)
        async with connect(f"ws://127.0.0.1:{proxy.port}") as client, connect(gateway.url) as watcher:
            session = await client.new_session()
            told = Told()
            nursery.start_soon(told.follow, session.updates())
            text = " ".join(LONG.split()[:60])
            prompt = session.prompt(text)
            await until_said(prompt, "w10")
            watched = (await watcher.resume(session.id)).updates()
            proxy.open = False
            await proxy.cut()
            async for update in watched:
                if isinstance(update, State) and update.ends:
                    assert update.state == "completed", "a lost socket cancels nothing"
                    break
            assert prompt.outcome is None
            await trio.to_thread.run_sync(gateway.again)
            proxy.open = True
            assert (await prompt.result()).state == "completed"
            assert list(told.texts.values()) == [text]
            assert [state.state for state in told.states] == ["queued", "running", "completed"]
            assert (told.away, told.back) == (1, 1)


async def test_case_51_a_network_that_flaps_while_the_gateway_is_killed(tmp_path, nursery):
    """Cut and cut again, in answers and in between, with a kill; every prompt that was sent has one outcome."""
    with trio.fail_after(240), Gateway(tmp_path) as gateway:
        proxy = Proxy(gateway.program.port)
        await nursery.start(proxy.run)
        async with connect(f"ws://127.0.0.1:{proxy.port}") as client:
            session = await client.new_session()
            told = Told()
            nursery.start_soon(told.follow, session.updates())
            prompts = []
            for round_ in range(4):
                prompts += [session.prompt(f"{round_} {n} a b c d e f") for n in range(2)]
                await until_state(prompts[-2], "running")
                await proxy.cut()
                if round_ == 2:
                    await trio.to_thread.run_sync(gateway.again)
            ended = {prompt.key: (await prompt.result()).state for prompt in prompts}
            records = await read(gateway, session.id)
            assert dict(outcomes(records)) == ended
            assert len(outcomes(records)) == len(prompts), "each once"
            assert set(ended.values()) <= {"completed", "interrupted"}
            for seq in empty_messages(gateway.store):
                told.texts.pop(seq, None)  # it was told more than was stored, and keeps it
            assert told.texts == {r["seq"]: r["text"] for r in records if r["kind"] == "answer"}


def has_run(runs, last):
    return runs.exists() and runs.read_text().endswith(last)


async def test_case_51_a_command_that_may_have_run_is_not_sent_again(tmp_path):
    """The gateway is killed as soon as it has run: its client learns how it ended, or that it cannot know."""
    with trio.fail_after(240), Gateway(tmp_path) as gateway:
        async with connect(gateway.url) as client:
            session = await client.new_session()
            for round_ in range(3):
                command = session.prompt(f"/count {round_}")
                await trio.to_thread.run_sync(wait_until, partial(has_run, tmp_path / "runs", f"{round_}\n"))
                await trio.to_thread.run_sync(gateway.again)
                try:
                    assert (await command.result()).facts.status in ("exited", "unknown")
                except Lost as lost:
                    assert "may have run" in str(lost)
            ended = outcomes(await read(gateway, session.id))
            assert len(ended) == len(dict(ended)) == 3
    assert (tmp_path / "runs").read_text() == "0\n1\n2\n"


def queued(frame):
    return ours_of(frame).get("turn", {}).get("state") == "queued"


def test_case_48_a_chat_shows_what_a_kill_cut_off_and_goes_on(tmp_path):
    """Two terminals: a chat with a slow turn and a prompt that waits, `kill -9`, and the gateway started again."""
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    with Gateway(tmp_path) as gateway, Terminal("chat", "--url", gateway.url, env=env) as chat:
        chat.until("· connected")
        chat.press(f"{LONG}\r")
        chat.until("w399")  # as it was typed
        with gateway.program.acp() as watcher:
            (info,) = watcher.call("session/list")["sessions"]
            watcher.call(
                "session/resume",
                {"sessionId": info["sessionId"], "cwd": "/", "_meta": {"gateway-trio": {"after": 0}}},
            )
            chat.press("and then this\r")
            watcher.until(lambda f: queued(f) and ours_of(f)["seq"] > 2)
            until_stored(gateway.store, "w0", "w5")
        gateway.down()
        chat.until("· connection lost, coming back …")
        gateway.up()
        chat.until("· back")
        assert "w0 w1 w2 w3 w4 w5" in chat.until("· interrupted: the gateway was cut off"), (
            "the part that there was"
        )
        chat.until("and then this")
        chat.press("/retry\r")
        chat.until("w3")
        assert "w0" in chat.text.rpartition("/retry")[2]
        chat.press("\x03")
        chat.until("· cancelled")
        chat.press("\x04")
        assert chat.leave() == 0
        env = environment(gateway.program)
        command = [sys.executable, "-m", "gateway_trio", "sessions", "export", info["sessionId"]]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=3 * PATIENCE)
        records = [json.loads(line) for line in done.stdout.splitlines()][1:-1]
        asked = {record["owner"]: record["text"] for record in records if record["kind"] == "prompt"}
        ended = [(record["owner"], record["state"]) for record in records if record.get("state", "") in ENDS]
        assert [(asked[owner], state) for owner, state in ended] == [
            (LONG, "interrupted"),
            ("and then this", "completed"),
            (LONG, "cancelled"),
        ]


ENDS = ("completed", "interrupted", "cancelled", "failed")


def test_case_51_an_export_goes_on_where_a_kill_cut_it_off(tmp_path):
    """It stands in the middle, as nobody reads what it writes; then its gateway is another process."""
    trio.run(fill, tmp_path / "gateway.db", 5000)
    with Gateway(tmp_path) as gateway:
        command = [sys.executable, "-m", "gateway_trio", "sessions", "export", ID]
        with subprocess.Popen(command, env=environment(gateway.program), stdout=subprocess.PIPE) as export:
            first = export.stdout.readline()
            gateway.again()
            lines = [first, *export.stdout]
            assert export.wait(PATIENCE) == 0
        records = [json.loads(line) for line in lines]
        assert [record["seq"] for record in records[1:-1]] == list(range(1, 5001))
        assert records[-1]["events"] == 5000
        assert os.listdir(tmp_path).count("gateway.db") == 1
