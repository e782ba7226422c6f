"""What only the store on disk does. What every store does is in `test_store.py`, what a process does in case 70."""

import contextlib
import fcntl
import json
import os
import resource
import socket
import sqlite3
import stat
import subprocess
import threading
from functools import partial
from pathlib import Path

import pytest
import trio
from attrs import evolve

from gateway_trio.core.events import Kind, Message, Prompt
from gateway_trio.core.session import TurnState
from gateway_trio.sqlite.changes import Changes
from gateway_trio.sqlite.faults import sentence
from gateway_trio.sqlite.lock import Lock
from gateway_trio.sqlite.reader import Reader
from gateway_trio.sqlite.retention import Retention
from gateway_trio.sqlite.schema import MIGRATIONS, migrate
from gateway_trio.sqlite.writer import Writer
from gateway_trio.sqlite_store import SqliteStore
from gateway_trio.store import (
    AddEvent,
    AddExec,
    AddSession,
    AddTurn,
    DropSession,
    EndExec,
    MoveTurn,
    SetText,
    StoreUnavailable,
)
from gateway_trio.worker import Job

S = TurnState
DAY = 86_400.0
ALL = 1 << 40


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "gateway.db"


@contextlib.asynccontextmanager
async def opened(path, **more):
    """A store that is open for the time of the block, all of which has a limit."""
    with trio.fail_after(60):
        store = SqliteStore(path, **more)
        await store.open()
        yield store
        await store.aclose()


def event(number, session="s", owner="t"):
    return AddEvent(session, number, owner, Prompt("hi", "turn"))


# --- files ---


async def test_nobody_else_may_read_it(path):
    before = os.umask(0)
    try:
        async with opened(path.parent / "deeper" / path.name) as store:
            await store.commit([AddSession("s", "local")])
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.rglob("*")}
    finally:
        os.umask(before)
    assert modes == {
        "deeper": 0o700, "gateway.db": 0o600, "gateway.db-wal": 0o600, "gateway.db-shm": 0o600,
        "gateway.db.lock": 0o600, "gateway.db.starting": 0o600,
    }  # fmt: skip
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_closing_puts_everything_into_the_one_file(path):
    async with opened(path) as store:
        await store.commit([AddSession("s", "local")])
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "gateway.db",
        "gateway.db.lock",
        "gateway.db.starting",
    ]
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT id FROM sessions").fetchall() == [("s",)]


@pytest.mark.parametrize("name", ["with blank and ?query#part.db", "é%20.db"])
async def test_any_name_will_do(path, name):
    async with opened(path.parent / name) as store:
        await store.commit([AddSession("s", "local")])
        assert (await store.session("s")).id == "s"
    assert (path.parent / name).exists()


async def test_closing_does_so_beside_another_program_that_reads(path):
    async with opened(path) as store:
        await store.commit([AddSession("s", "local")])
        other = sqlite3.connect(path)
        other.execute("SELECT * FROM sessions").fetchall()
    try:
        assert path.with_name("gateway.db-wal").stat().st_size == 0
    finally:
        other.close()


def has_thread(name):
    return any(thread.name == name for thread in threading.enumerate())


@pytest.mark.parametrize("until_there_is", [None, "store-writer", "store-reader"])
async def test_opening_that_is_given_up_lets_go_of_the_lock(path, until_there_is):
    with trio.fail_after(60):
        for _ in range(10):
            store = SqliteStore(path)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.open)
                while until_there_is and not has_thread(until_there_is):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            await store.aclose()
            # The threads that were left close by themselves.
            await until(lambda: not has_thread("store-writer") and not has_thread("store-reader"))
    async with opened(path):
        pass


def test_nobody_reads_for_those_who_have_gone():
    reader = Reader(Path("/nowhere"))
    gone = Job(lambda _: 1 / 0, given_up=True)
    reader.run([gone])
    assert gone.error is None


async def test_what_is_not_open_refuses(path):
    store = SqliteStore(path)
    await store.aclose()
    for ask in (store.commit([]), store.session("s"), store.unfinished()):
        with pytest.raises(StoreUnavailable, match="not open"):
            await ask
    async with opened(path) as store:
        pass
    for ask in (store.commit([]), store.session("s"), store.unfinished()):
        with pytest.raises(StoreUnavailable, match="closed"):
            await ask


@pytest.mark.parametrize(
    "content", [b"this is no database, " * 100, b"SQLite format 3\0" + b"\xff" * 5000], ids=["text", "damaged"]
)
async def test_a_damaged_file_is_named_and_left_as_it_is(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match=r"gateway\.db: .* left as it is"):
        await SqliteStore(path).open()
    assert path.read_bytes() == content
    assert not path.with_name("gateway.db-wal").exists()


@pytest.mark.parametrize("pages", [4, 1000])
async def test_a_file_that_is_damaged_behind_its_beginning_is_left_as_it_is_too(path, pages):
    """Its version can still be read; what is damaged is found when the tables are."""
    async with opened(path) as store:
        await store.commit([AddSession("s", "local"), *(event(number) for number in range(1, 100))])
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xee" * min(pages * 4096, path.stat().st_size - 4096))
    content = path.read_bytes()
    with pytest.raises(StoreUnavailable, match=r"gateway\.db: .* left as it is"):
        await SqliteStore(path).open()
    assert path.read_bytes() == content


async def test_opening_one_of_this_version_writes_nothing(path):
    async with opened(path) as store:
        await store.commit([AddSession("s", "local")])
    content = path.read_bytes()
    async with opened(path):
        assert path.with_name("gateway.db-wal").stat().st_size == 0
    assert path.read_bytes() == content


async def test_damage_that_is_found_later_refuses_what_needs_it(path):
    async with opened(path) as store:
        await store.commit([AddSession("s", "local"), *(event(number) for number in range(1, 1000))])
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size - size // 2))
    async with opened(path) as store:
        with pytest.raises(StoreUnavailable, match=r"damaged, and was left as it is \(.*SQLITE_CORRUPT"):
            await store.events("s", 1, keep_bytes=ALL)
    assert path.stat().st_size >= size


@pytest.mark.parametrize(
    ("version", "why"), [(99, "version 99 of a newer gateway-trio"), (0, "another program's")]
)
async def test_a_database_of_a_newer_version_or_another_program_is_left_as_it_is(path, version, why):
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE sessions (theirs)")
        db.execute(f"PRAGMA user_version = {version}")
        db.commit()
    content = path.read_bytes()
    with pytest.raises(StoreUnavailable, match=why):
        await SqliteStore(path).open()
    assert path.read_bytes() == content


@pytest.mark.parametrize("place", ["a file/gateway.db", "."])
async def test_a_place_where_none_can_be_is_named(path, place):
    path.parent.mkdir()
    (path.parent / "a file").touch()
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        await SqliteStore(path.parent / place).open()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_FULL, "no room left"),
        (sqlite3.SQLITE_IOERR_WRITE, "its disk fails"),
        (sqlite3.SQLITE_BUSY, "locked"),
        (sqlite3.SQLITE_READONLY_DBMOVED, "cannot be written"),
        (sqlite3.SQLITE_MISUSE, "cannot be used"),
    ],
)
def test_what_sqlite_says_is_said_in_words(code, words):
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode, error.sqlite_errorname = code, "SQLITE_NAME"
    assert words in sentence(Path("/a/b.db"), error)
    assert sentence(Path("/a/b.db"), error).endswith("(as SQLite says it, SQLITE_NAME)")
    assert sentence(Path("/a/b.db"), error).startswith("the store /a/b.db: ")


# --- the lock ---


async def test_a_second_gateway_is_told_who_has_it(path):
    async with opened(path) as first:
        who = rf"pid {os.getpid()} on {socket.gethostname()}, since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"
        with pytest.raises(StoreUnavailable, match=who):
            await SqliteStore(path).open()
        link = path.parent / "link.db"
        link.symlink_to(path)
        with pytest.raises(StoreUnavailable, match=who):
            await SqliteStore(link).open()
        await first.commit([AddSession("s", "local")])
    async with opened(path) as second:
        assert await second.session("s") is not None


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b'{"pid": 1}', b'{"pid": 1, "host": "h", "since": null}'])
def test_a_holder_that_does_not_say_who_it_is(path, said):
    path.parent.mkdir()
    with Lock(path):
        path.with_name("gateway.db.lock").write_bytes(said)
        with pytest.raises(StoreUnavailable, match="does not say"):
            Lock(path)


def test_what_a_dead_holder_said_is_written_over(path):
    path.parent.mkdir()
    path.with_name("gateway.db.lock").write_text("x" * 1000)
    with Lock(path) as lock:
        assert json.loads(path.with_name("gateway.db.lock").read_text())["pid"] == os.getpid()
        lock.release()
        Lock(path).release()


@pytest.mark.parametrize("before", ["", '{"pid": 1, "host": "gone", "since": 0}'], ids=["nothing", "a dead one"])
def test_those_that_start_at_once_are_told_who_was_first(path, monkeypatch, before):
    """One is held up when it has the lock and has not said who it is; the other one must wait for that."""
    path.parent.mkdir()
    path.with_name("gateway.db.lock").write_text(before)
    refused, waits = [], threading.Event()

    def start_second():
        with pytest.raises(StoreUnavailable) as error:
            Lock(path)
        refused.append(str(error.value))

    second = threading.Thread(target=start_second)
    flock, ftruncate = fcntl.flock, os.ftruncate

    def flock_that_tells(descriptor, how):
        if not how & fcntl.LOCK_NB and threading.current_thread() is second:
            waits.set()
        flock(descriptor, how)

    def held_up(descriptor, size):
        second.start()
        waits.wait(5)
        ftruncate(descriptor, size)

    monkeypatch.setattr(fcntl, "flock", flock_that_tells)
    monkeypatch.setattr(os, "ftruncate", held_up)
    with Lock(path):
        second.join(30)
        (why,) = refused
        assert f"in use by another gateway: pid {os.getpid()} on {socket.gethostname()}, " in why


# --- migrations ---


def columns(db):
    return [row[1] for row in db.execute("PRAGMA table_info(extra)")]


def make(db):
    db.execute("CREATE TABLE extra (one)")


def widen(db):
    db.execute("ALTER TABLE extra ADD COLUMN two")


def break_(db):
    db.execute("CREATE TABLE more (one)")
    raise ZeroDivisionError


def test_a_database_has_each_migration_once():
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        for steps, has in (([make], ["one"]), ([make, widen], ["one", "two"]), ([make, widen], ["one", "two"])):
            migrate(db, Path("x"), steps)
            assert columns(db) == has
            assert db.execute("PRAGMA user_version").fetchone() == (len(steps),)


def test_a_migration_that_fails_changes_nothing():
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db, Path("x"), [make])
        with pytest.raises(ZeroDivisionError):
            migrate(db, Path("x"), [make, widen, break_])
        assert columns(db) == ["one"]
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("extra",)]
        assert not db.in_transaction


@pytest.mark.parametrize("version", range(len(MIGRATIONS)))
async def test_an_earlier_version_is_brought_to_this_one(version, path):
    """A file of none is the earliest."""
    path.parent.mkdir()
    path.touch()
    if version:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            migrate(db, path, MIGRATIONS[:version])
            changes = Changes(db, lambda _: None)
            for change in (AddSession("s", "local"), event(1), evolve(event(2), body=Prompt("/x", "exec"))):
                changes.apply(change, 1e12)
    async with opened(path) as store:
        found = await store.conversation("s", before=9, keep_bytes=ALL)
        assert [row.number for row in found] == ([1] if version else [])
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


# --- a disk that fails ---


def test_each_commit_is_synced(path):
    writer = Writer(path, partial(Retention, keep_days=1, keep_events=1, clock=Clock()), Clock())
    writer.open()
    assert writer._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert writer._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    writer.close()


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB, where a test may mount one."""
    place = tmp_path / "small"
    place.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True, text=True
    )
    if mount.returncode:
        pytest.skip(f"cannot mount a small disk: {mount.stderr}")
    yield place
    subprocess.run(["umount", place], check=True)


async def test_a_full_disk_refuses_until_there_is_room(small_disk):
    """Case 70."""
    ballast = small_disk / "ballast"
    async with opened(small_disk / "gateway.db") as store:
        await store.commit([AddSession("s", "local"), event(1)])
        with pytest.raises(OSError, match="space"):
            ballast.write_bytes(bytes(2**21))
        with pytest.raises(
            StoreUnavailable, match=r"small/gateway\.db: there is no room left for it \(.*SQLITE_FULL"
        ):
            for _ in range(2000):
                last = (await store.session("s")).last
                await store.commit([event(last + 1), SetText("s", last + 1, "x" * 1000)])
        last = (await store.session("s")).last
        assert last < 2000
        with pytest.raises(StoreUnavailable, match="no room"):
            await store.commit([event(last + 1), SetText("s", last + 1, "x" * 1000)])
        with pytest.raises(StoreUnavailable, match="no room"):  # so large that SQLite gives up before the commit
            await store.commit([event(last + 1), SetText("s", last + 1, "x" * 10_000_000)])
        assert [row.number for row in await store.events("s", 1, keep_bytes=ALL)] == list(range(1, last + 1))
        ballast.unlink()
        await store.commit([event(last + 1), SetText("s", last + 1, "x" * 1000)])
        assert (await store.session("s")).last == last + 1
    async with opened(small_disk / "gateway.db") as store:
        assert [row.number for row in await store.events("s", 1, keep_bytes=ALL)] == list(range(1, last + 2))


async def test_a_disk_that_fails_refuses_until_it_does_not(path):
    """Case 70, where nothing can be mounted: a limit on the size of files, which is an error of the disk to SQLite."""
    async with opened(path) as store:
        await store.commit([AddSession("s", "local")])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            with pytest.raises(StoreUnavailable, match=r"its disk fails \(.*SQLITE_IOERR"):
                for number in range(1, 1000):
                    await store.commit([event(number), SetText("s", number, "x" * 1000)])
            with pytest.raises(StoreUnavailable, match="its disk fails"):
                await store.commit([event(number), SetText("s", number, "x" * 100_000)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await store.commit([event(number), SetText("s", number, "x" * 1000)])
        assert [row.number for row in await store.events("s", 1, keep_bytes=ALL)] == list(range(1, number + 1))


async def test_another_program_that_holds_it_refuses_commits_while_it_does(path):
    async with opened(path) as store:
        await store.commit([AddSession("s", "local")])
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="another program holds it locked"):
                await store.commit([event(1)])
            other.execute("ROLLBACK")
        await store.commit([event(1)])


async def test_what_sqlite_does_not_take_is_refused_and_fails_no_other(path):
    async with opened(path) as store:
        await store.commit([AddSession("s", "local")])
        too_large = AddTurn("t", "s", None, "", 2**70)
        outcomes = {}

        async def commit(name, *changes):
            try:
                await store.commit(changes)
            except Exception as error:
                outcomes[name] = type(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit, "a bug", AddSession("s2", "local"), too_large)
            nursery.start_soon(commit, "good", event(1))
        assert outcomes == {"a bug": OverflowError}
        assert (await store.session("s")).last == 1
        assert await store.session("s2") is None


# --- retention ---


class Clock:
    """A time of the test's own, in Unix seconds."""

    def __init__(self):
        self.now = 1_000_000_000.0

    def __call__(self):
        return self.now


def count(path, what):
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        return db.execute(f"SELECT count(*) FROM {what}").fetchone()[0]


async def until(holds):
    """Wait for what a thread does and nobody tells of; whoever calls has a limit."""
    while not holds():  # noqa: ASYNC110 - as it says
        await trio.sleep(0.01)


def settle(turn, number):
    return [
        AddTurn(turn, "s", "key", "", number),
        MoveTurn(turn, frozenset({S.QUEUED}), S.CANCELLED),
    ]


async def test_a_session_that_grows_keeps_its_newest_events(path):
    async with opened(path, keep_events=300) as store:
        await store.commit([AddSession("s", "local")])
        for start in range(1, 2001, 100):
            await store.commit([event(number) for number in range(start, start + 100)])
        await store.commit([event(number) for number in range(2001, 2049)])  # 2,048: it is looked at
        await until(lambda: count(path, "events") == 300)
        assert [row.number for row in await store.events("s", 1, keep_bytes=ALL)] == list(range(1749, 2049))
        assert (await store.session("s")).last == 2048
        await store.commit([event(2049)])
    async with opened(path, keep_events=300) as store:
        assert (await store.session("s")).last == 2049


async def test_what_waits_or_runs_keeps_its_events(path):
    async with opened(path, keep_events=10) as store:
        await store.commit([AddSession("s", "local"), *(event(number) for number in range(1, 200))])
        await store.commit([event(200), AddTurn("t", "s", None, "", 200), *(event(n) for n in range(201, 513))])
        await until(lambda: count(path, "events") == 313)
        await store.commit([AddSession("other", "local")])
        assert [row.number for row in await store.events("s", 1, keep_bytes=ALL)] == list(range(200, 513))
        await store.commit(
            [MoveTurn("t", frozenset({S.QUEUED}), S.CANCELLED), *(event(n) for n in range(513, 769))]
        )
        await until(lambda: count(path, "events") == 10)


async def test_what_is_old_goes_and_what_is_used_stays(path):
    clock = Clock()
    async with opened(path, keep_days=10, clock=clock) as store:
        await store.commit([AddSession("s", "local"), AddSession("unused", "local", "name")])
        await store.commit([event(1, "unused"), AddEvent("unused", 2, "u", Message(Kind.ANSWER))])
        await store.commit([event(number) for number in range(1, 251)] + settle("old", 250))
        await store.commit([AddSession("waits", "local"), event(1, "waits"), AddTurn("w", "waits", "key", "", 1)])
        clock.now += 6 * DAY
        await store.commit([event(251), *settle("new", 251)])
        clock.now += 5 * DAY
        await store.commit([event(252)])
        await until(lambda: count(path, "events WHERE session = 1") == 2)
        assert [row.number for row in await store.events("s", 1, keep_bytes=ALL)] == [251, 252]
        assert (await store.session("s")).last == 252
        await until(lambda: count(path, "works WHERE id = 'old'") == 0)  # a step of its own
        assert [work.id for work in await store.keyed("s", 9)] == ["new"]
        # Whole sessions stay while the gateway may have them in memory.
        assert len(await store.sessions(None, skip=0, limit=9)) == 3
    async with opened(path, keep_days=10, clock=clock) as store:
        assert [row.id for row in await store.sessions(None, skip=0, limit=9)] == ["waits", "s"]
        assert await store.named("local", "name") is None
        await until(lambda: count(path, "dropped") == 0)
        assert count(path, "events WHERE session = 2") == 0
        assert count(path, "unended") == 0
        assert [work.id for work in await store.unfinished()] == ["w"]
        assert len(await store.events("waits", 1, keep_bytes=ALL)) == 1


async def test_the_audit_of_an_exec_goes_with_its_age(path):
    clock = Clock()
    async with opened(path, keep_days=10, clock=clock) as store:
        for i in range(250):
            await store.commit([AddExec(f"e{i}", None, "local", "uptime", (), clock.now)])
            if i:
                await store.commit([EndExec(f"e{i}", {}, clock.now)])
        clock.now += 11 * DAY
        await store.commit([])
        await until(lambda: count(path, "execs") == 1)
        assert [work.id for work in await store.unfinished()] == ["e0"]
        assert count(path, "works") == 1


def test_what_becomes_due_during_a_round_does_not_wait_for_a_commit():
    clock = Clock()
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db, Path("x"))
        retention = Retention(db, keep_days=10, keep_events=1000, clock=clock)
        changes = Changes(db, retention.grown)
        changes.apply(AddSession("s", "local"), clock())
        changes.apply(event(1), clock())
        changes.apply(AddTurn("t", "s", None, "", 1), clock())
        changes.apply(MoveTurn("t", frozenset({S.QUEUED}), S.CANCELLED), clock())
        assert retention.step(), "a round has begun"
        clock.now += 11 * DAY
        while retention.step():
            pass
        assert not retention.due
        assert db.execute("SELECT count(*) FROM works").fetchone() == (0,)


def test_no_step_is_a_great_one():
    """So that commits, which stand between the steps, do not wait."""
    clock = Clock()
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db, Path("x"))
        retention = Retention(db, keep_days=10, keep_events=1000, clock=clock)
        changes = Changes(db, retention.grown)
        for session in ("dropped", "old", "long"):
            changes.apply(AddSession(session, "local"), clock())
            for number in range(1, 2001):
                changes.apply(event(number, session), clock())
                changes.apply(AddTurn(f"{session}-{number}", session, None, "", number), clock())
                changes.apply(MoveTurn(f"{session}-{number}", frozenset({S.QUEUED}), S.CANCELLED), clock())
        changes.apply(DropSession("dropped"), clock())
        clock.now += 11 * DAY
        changes.apply(event(2001, "long"), clock())
        retention.drop(retention.expired())
        assert db.execute("SELECT id FROM sessions").fetchall() == [("long",)]
        assert db.execute("SELECT count(*) FROM events").fetchone() == (6001,)
        before = db.total_changes
        more = True
        while more:
            more = retention.step()
            assert db.total_changes - before <= 210  # a hundred rows, of two tables at most, and who was dropped
            before = db.total_changes
        assert not retention.due
        assert db.execute("SELECT number FROM events").fetchall() == [(2001,)]
        for table in ("works", "dropped", "unended"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
