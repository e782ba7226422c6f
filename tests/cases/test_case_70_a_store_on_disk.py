"""Case 70 and what goes with it: processes that hold a store on disk, are killed, replace themselves, run out of room."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys

import pytest

from harness import Program

PATIENCE = 60

#: Opens the store, and says so; then it does what its second argument says.
HOLDER = """
import itertools, os, sys, trio
from gateway_trio.core.events import Prompt
from gateway_trio.sqlite_store import SqliteStore
from gateway_trio.store import AddEvent, AddSession, StoreUnavailable

async def main():
    store = SqliteStore(sys.argv[1])
    try:
        await store.open()
    except StoreUnavailable as error:
        print(error, flush=True)
        return
    print("open", os.getpid(), flush=True)
    if sys.argv[2] == "commit":
        async with trio.open_nursery() as nursery:
            for session in "ab":
                nursery.start_soon(commit, store, session)
    elif sys.argv[2] == "exec":
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM, sys.argv[1], "hold"])
    await trio.sleep_forever()

async def commit(store, session):
    await store.commit([AddSession(session, "ann")])
    for number in itertools.count(1):
        await store.commit([AddEvent(session, number, "t", Prompt("hi", "turn"))])
        print(session, number, flush=True)

PROGRAM = sys.stdin.read() if sys.argv[2] == "exec" else ""
trio.run(main)
"""


@contextlib.contextmanager
def holder(path, does):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path, does],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        process.stdin.write(HOLDER)
        process.stdin.close()
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE)
        process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_case_70_the_lock_is_gone_with_its_holder(tmp_path, number):
    path = tmp_path / "gateway.db"
    with holder(path, "hold") as first:
        assert first.stdout.readline() == f"open {first.pid}\n"
        with holder(path, "hold") as second:
            assert f"in use by another gateway: pid {first.pid} on " in second.stdout.readline()
            assert second.wait(PATIENCE) == 0
        os.kill(first.pid, number)
        first.wait(PATIENCE)
        with holder(path, "hold") as third:
            assert third.stdout.readline() == f"open {third.pid}\n"


def test_case_70_a_process_that_replaces_itself_has_the_lock_again(tmp_path):
    with holder(tmp_path / "gateway.db", "exec") as process:
        assert [process.stdout.readline() for _ in range(2)] == [f"open {process.pid}\n"] * 2


@pytest.mark.parametrize("after", [1, 10, 37, 100])
def test_case_70_what_was_told_is_there_after_kill_9(tmp_path, after):
    path = tmp_path / "gateway.db"
    with holder(path, "commit") as process:
        assert process.stdout.readline().startswith("open")
        told = [process.stdout.readline() for _ in range(after)]
        process.kill()
        told += process.stdout.readlines()
    last = dict.fromkeys("ab", 0)
    for line in told:
        if line.endswith("\n"):
            last[line[0]] = int(line[2:])
    with holder(path, "hold") as process:
        assert process.stdout.readline().startswith("open")
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            for session, number in last.items():
                of = (session,)
                (there,) = db.execute("SELECT last FROM sessions WHERE id = ?", of).fetchone() or (0,)
                events = db.execute(
                    "SELECT number FROM events WHERE session = (SELECT ref FROM sessions WHERE id = ?) "
                    "ORDER BY number", of,
                ).fetchall()  # fmt: skip
                assert there in (number, number + 1)  # one more may have been written than was told
                assert events == [(n,) for n in range(1, there + 1)]


# --- the program ---

ON_DISK = """
[store]
type = "sqlite"
"""


def test_case_70_the_program_keeps_sessions_on_disk_and_lets_no_second_one_at_them(tmp_path):
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    path = tmp_path / "state" / "gateway-trio" / "gateway.db"
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
    with Program(tmp_path / "first", ON_DISK, env=env) as first:
        assert str(path) in first.wait_log('"event": "store"')
        assert "forgotten at exit" not in first.text
        assert path.stat().st_mode & 0o777 == 0o600
        with Program(tmp_path / "second", ON_DISK, env=env, ready=False) as second:
            assert second.wait() == 78
            assert f"the store {path} is in use by another gateway: pid {first.pid} on " in second.text
            assert "Traceback" not in second.text
        first.signal()
        assert first.wait() == 0
    with Program(tmp_path / "second", ON_DISK, env=env) as second:
        second.wait_log('"event": "store"')


@pytest.mark.parametrize("content", [b"no database at all, " * 500, b"SQLite format 3\0" + b"\xff" * 5000])
def test_case_70_a_damaged_store_is_no_start_and_is_left_as_it_is(tmp_path, content):
    path = tmp_path / "gateway.db"
    path.write_bytes(content)
    with Program(tmp_path, f'[store]\npath = "{path}"\n', ready=False) as program:
        assert program.wait() == 78
        assert f"gateway-trio does not start: the store {path}: " in program.text
        assert "Traceback" not in program.text
    assert path.read_bytes() == content
