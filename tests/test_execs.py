"""Quick commands as real processes: what they get, how they end, and that nothing of them is left."""

import os
import signal
import subprocess
import sys
import threading
import tracemalloc
import uuid
from pathlib import Path

import pytest
import trio
import trio.testing

from gateway_trio.execs import Limits, Spawn, Status, Stop, check_words, environment, run_exec, shell_argv
from harness import PATIENCE


def marked(*exec_ids):
    """The live processes of commands, not by the code under test. (A zombie's environment is empty.)"""
    entries = {f"GATEWAY_TRIO_EXEC_ID={exec_id}".encode() for exec_id in exec_ids}
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and entries & {*(process / "environ").read_bytes().split(b"\0")}:
                found.append(int(process.name))
        except OSError:
            pass
    return found


def exists(pid):
    return Path(f"/proc/{pid}/exe").exists()  # not that of a zombie


def descriptors():
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


class Command:
    """One command, what it wrote, and how it went."""

    def __init__(self, script, *words, argv=None, env=None, cwd=None, timeout=2 * PATIENCE, term=2.0, **limits):
        self.id = uuid.uuid4().hex
        argv = shell_argv("test", script, words) if argv is None else argv
        self.spawn = Spawn(self.id, argv, environment(os.environ, env or {}), cwd)
        self.limits = Limits(timeout, term, **limits)
        self.stop = Stop()
        self.texts = []
        self.facts = None
        self.gate = None  # an Event that emit waits for
        self._wrote = trio.Event()

    @property
    def text(self):
        return "".join(self.texts)

    async def emit(self, text):
        assert text
        self.texts.append(text)
        self._wrote.set()
        if self.gate is not None:
            await self.gate.wait()

    async def wrote(self, what):
        while what not in self.text:
            await self._wrote.wait()
            self._wrote = trio.Event()

    async def run(self):
        self.facts = await run_exec(self.spawn, self.limits, self.stop, self.emit)
        return self.facts

    @property
    def left(self):
        return marked(self.id)


@pytest.fixture(autouse=True)
def _no_descriptor_is_lost():
    before = descriptors()
    yield
    assert descriptors() == before


async def ran(*args, **kwargs):
    command = Command(*args, **kwargs)
    with trio.fail_after(PATIENCE):
        await command.run()
    return command


# --- how it ends by itself ------------------------------------------------------------------------


async def test_output_in_order_and_exit_code():
    command = await ran("echo partial; echo why >&2; exit 7")
    assert command.text == "partial\nwhy\n"
    facts = command.facts
    assert (facts.status, facts.exit_code, facts.signal, facts.bytes, facts.cut) == (
        Status.EXITED,
        7,
        None,
        12,
        0,
    )
    assert facts.seconds >= 0


async def test_ended_by_a_signal_that_is_not_ours():
    facts = (await ran("kill -9 $$")).facts
    assert (facts.status, facts.exit_code, facts.signal) == (Status.SIGNALLED, None, 9)


async def test_bytes_that_are_no_text_are_replaced():
    assert (await ran(r"printf '\377\376'")).text == "\ufffd\ufffd"


@pytest.mark.parametrize("script", ["cat", "read x", "cat; read x; echo end"])
async def test_there_is_no_input(script):
    command = await ran(script)
    assert command.facts.status is Status.EXITED


@pytest.mark.parametrize(
    "word",
    ["; rm -rf x", "$(id)", "`id`", 'a b "c d"', "*", "-n", "%s%n", "two\nlines", "", "é😀", "'", "\\"],
)
async def test_each_word_is_that_argument(word):
    assert check_words([word, "last"]) is None
    script = 'echo $#; for a; do printf "<%s>" "$a"; done'
    assert (await ran(script, word, "last")).text == f"2\n<{word}><last>"
    argv = ("printf", "<%s>", word)
    assert (await ran("", argv=argv)).text == f"<{word}>"


def test_what_is_no_argument_is_named():
    assert check_words(["x" * 4096] * 32) is None
    assert "32" in check_words(["x"] * 33)
    assert "word 2" in check_words(["x", "é" * 2049])
    assert "NUL" in check_words(["a\0b"])
    assert "surrogate" in check_words(["\ud800"])


async def test_only_the_allow_list_is_in_the_environment(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    command = await ran("", argv=("env",), env={"MINE": "1"})
    names = {line.partition("=")[0] for line in command.text.splitlines()}
    assert names <= {
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TZ",
        "USER",
        "SHELL",
        "TERM",
        "MINE",
        "GATEWAY_TRIO_EXEC_ID",
    }
    assert {"PATH", "MINE"} <= names
    assert f"GATEWAY_TRIO_EXEC_ID={command.id}\n" in command.text


async def test_a_secret_is_struck_out_also_across_reads():
    command = await ran("printf hunter2; sleep 0.05; printf hunter2; echo .", secrets=("hunter2hunter2", "short"))
    assert command.text == "***.\n"


async def test_where_and_how_it_runs(tmp_path):
    assert (await ran("pwd; umask", cwd=str(tmp_path))).text == f"{tmp_path}\n0077\n"
    assert (await ran("pwd", env={"HOME": str(tmp_path)})).text == f"{tmp_path}\n"
    del (home := Command("pwd")).spawn.env["HOME"]
    await home.run()
    assert home.text == f"{Path.home()}\n"


async def test_it_has_a_session_of_its_own_which_no_ctrl_c_reaches():
    command = Command("echo $$; exec sleep 3141")
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(command.run)
            await command.wrote("\n")
            pid = int(command.text)
            assert os.getsid(pid) == os.getpgid(pid) == pid != os.getsid(0)
            command.stop(Status.KILLED)


async def test_what_cannot_start_says_why(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("no program")
    cases = {
        "directory": await ran("true", cwd=str(tmp_path / "none")),
        "program not found": await ran("", argv=(str(tmp_path / "missing"),)),
        "not executable": await ran("", argv=(str(plain),)),
        "too long": await ran("", argv=("true", *["x" * 100_000] * 100)),
        "null byte": await ran("", argv=("true", "a\0b")),
        "cannot be started": await ran("", argv=("true", "\ud800")),
    }
    for words, command in cases.items():
        assert command.facts.status is Status.SPAWN_FAILED
        assert words in command.facts.error
        assert (command.facts.exit_code, command.facts.signal, command.text) == (None, None, "")
    assert len({command.facts.error for command in cases.values()}) == len(cases)


# --- what it leaves running -----------------------------------------------------------------------


@pytest.mark.parametrize("background", ["keep", "kill"])
@pytest.mark.parametrize(
    ("script", "number"),
    [
        ("sleep 3141 & echo started", 1),
        ("setsid sleep 3141 & echo started", 1),
        ("setsid sleep 3141 >/dev/null 2>&1 & echo started", 1),
        ("env -i sleep 3141 >/dev/null 2>&1 & echo started $!", 1),
        ("sleep 0.6; setsid sleep 3141 >/dev/null 2>&1 & sleep 3141 & sleep 0.6; echo started", 2),
        ("for i in 1 2 3 4 5; do setsid sleep 3141 >/dev/null 2>&1 & done; echo started", 5),
    ],
)
async def test_what_is_left_running_is_counted(script, number, background):
    command = Command(script, background=background)
    with trio.fail_after(PATIENCE):
        await command.run()
    word, *pids = command.text.split()
    assert word == "started"
    assert (command.facts.status, command.facts.exit_code) == (Status.EXITED, 0)
    assert command.facts.background == number
    alive = {*command.left, *(int(pid) for pid in pids if exists(pid))}
    assert len(alive) == (number if background == "keep" else 0)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


async def test_children_that_have_ended_are_not_counted():
    command = await ran("ls >/dev/null; (echo sub); true | cat; echo end")
    assert command.facts.background == 0


async def test_a_child_that_ends_with_the_pipe_is_waited_for_and_not_counted():
    commands = [Command("(sleep 0.05; echo late) & echo early") for _ in range(20)]
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            for command in commands:
                nursery.start_soon(command.run)
    assert {command.text for command in commands} == {"early\nlate\n"}
    assert [command.facts.background for command in commands] == [0] * 20


async def test_a_child_that_goes_on_writing_does_not_hold_it():
    command = Command("yes & echo up", output_bytes=2**40)
    with trio.fail_after(PATIENCE):
        await command.run()
    assert command.facts.status is Status.EXITED


# --- how it is ended ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script", ["sleep 3141", "sleep 3141; echo no", "kill -STOP $$; echo no", "sleep 3141 & sleep 3141"]
)
async def test_a_timeout_ends_all_of_it(script):
    command = await ran(f"echo begun; {script}", timeout=0.3)
    facts = command.facts
    assert (facts.status, facts.exit_code, facts.signal, facts.background) == (
        Status.TIMEOUT,
        None,
        signal.SIGTERM,
        0,
    )
    assert command.text == "begun\n"
    assert facts.seconds >= 0.3
    assert command.left == []


async def test_what_ignores_term_is_killed_after_term_seconds():
    command = await ran("trap '' TERM; sleep 3141; echo no", timeout=0.3, term=0.4)
    assert (command.facts.status, command.facts.signal, command.text) == (Status.TIMEOUT, signal.SIGKILL, "")
    assert command.facts.seconds >= 0.7
    assert command.left == []


async def test_what_ignores_term_and_is_not_the_leader_is_killed_after_term_seconds():
    began = trio.current_time()
    command = await ran(
        "(trap '' TERM; exec sleep 3141) & (trap '' TERM; setsid sleep 3141) & sleep 3141",
        timeout=0.3,
        term=0.4,
    )
    assert command.facts.signal == signal.SIGTERM
    assert trio.current_time() - began >= 0.7
    assert command.left == []


async def test_term_leaves_time_to_clean_up_for_the_leader_and_for_the_others():
    program = (
        "import os, signal, sys, time\n"
        "who, seconds = sys.argv[1:]\n"
        "def tidy(*_): time.sleep(float(seconds)); os.write(1, who.encode() + b' tidy\\n'); os._exit(3)\n"
        "signal.signal(signal.SIGTERM, tidy); os.write(1, who.encode() + b' up\\n')\n"
        "while 1: signal.pause()"
    )
    python = f'{sys.executable} -c "{program}"'
    command = Command(f"{python} child 0.1 & exec {python} leader 0", term=3)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(command.run)
            await command.wrote("child up")
            await command.wrote("leader up")
            command.stop(Status.DEADLINE)
    assert command.text.endswith("leader tidy\nchild tidy\n")
    assert (command.facts.status, command.facts.exit_code, command.facts.signal) == (Status.DEADLINE, 3, None)
    assert command.left == []


@pytest.mark.parametrize("children", [1, 50])
async def test_those_that_left_the_group_are_ended_too(children):
    command = await ran(f"for i in $(seq {children}); do setsid sleep 3141 & done; sleep 3141", timeout=0.5)
    assert command.facts.status is Status.TIMEOUT
    assert command.facts.background == 0
    assert command.left == []


@pytest.mark.parametrize("status", [Status.KILLED, Status.CANCELLED, Status.DEADLINE])
async def test_the_first_reason_wins(status):
    command = Command("echo up; sleep 3141 & setsid sleep 3141")
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(command.run)
            await command.wrote("up")
            command.stop(status)
            command.stop(Status.UNKNOWN)
            await command.stop.wait()
    assert command.facts.status is status is command.stop.status
    assert command.left == []


async def test_a_stop_before_the_start_starts_nothing(tmp_path):
    command = Command(f"touch {tmp_path}/ran")
    command.stop(Status.CANCELLED)
    facts = await command.run()
    assert (facts.status, facts.exit_code, facts.seconds) == (Status.CANCELLED, None, 0)
    assert list(tmp_path.iterdir()) == []


async def test_a_stop_after_the_end_changes_nothing():
    command = Command("echo up")
    command.gate = trio.Event()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(command.run)
            await command.wrote("up")
            await trio.testing.wait_all_tasks_blocked(0.3)
            command.stop(Status.KILLED)
            command.gate.set()
    assert command.facts.status is Status.EXITED


# --- too much output ------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["yes", "head -c 1000000000 /dev/zero | tr '\\0' x", "trap '' TERM PIPE; yes"])
async def test_endless_output_is_cut_and_ended(script):
    tracemalloc.start()
    command = await ran(script, term=0.2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    facts = command.facts
    assert facts.status is Status.OUTPUT_LIMIT
    assert 16 * 2**20 < facts.bytes <= 16 * 2**20 + 65536
    assert facts.cut == facts.bytes - 65536
    assert f"\n[… {facts.cut} characters left out …]\n" in command.text
    assert len(command.text) < 70_000
    assert peak < 3_000_000
    assert command.left == []


async def test_long_output_keeps_head_and_tail():
    command = await ran("seq 50000")
    everything = "".join(f"{i}\n" for i in range(1, 50001))
    cut = len(everything) - 65536
    assert command.text == f"{everything[:32768]}\n[… {cut} characters left out …]\n{everything[-32768:]}"
    assert (command.facts.status, command.facts.cut, command.facts.bytes) == (
        Status.EXITED,
        cut,
        len(everything),
    )


# --- an emit that waits ---------------------------------------------------------------------------


async def test_an_emit_that_waits_stops_no_clock_and_loses_nothing():
    command = Command("echo $$; echo second; setsid sleep 3141 & exec sleep 3141", timeout=0.4)
    command.gate = trio.Event()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(command.run)
            await command.wrote("\n")
            pidfd = os.pidfd_open(int(command.text.split()[0]))
            await trio.lowlevel.wait_readable(pidfd)
            os.close(pidfd)
            assert command.facts is None
            command.gate.set()
    assert command.facts.status is Status.TIMEOUT
    assert command.text.endswith("second\n")
    assert command.left == []


async def test_an_emit_that_fails_kills_the_command_and_is_told():
    command = Command("echo up; setsid sleep 3141 & sleep 3141")

    async def emit(text):
        raise OSError("the store is gone")

    with trio.fail_after(PATIENCE), pytest.raises(ExceptionGroup) as caught:
        await run_exec(command.spawn, command.limits, command.stop, emit)
    assert caught.group_contains(OSError, match="the store is gone")
    assert command.left == []


# --- cancelled from outside -----------------------------------------------------------------------


async def test_a_cancel_ends_all_of_it_at_once():
    script = "trap '' TERM; setsid sleep 3141 & sleep 3141 & env -i sleep 3141 & echo up $!; wait"
    command = Command(script, term=2 * PATIENCE)
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(command.run)
            await command.wrote("\n")
            nursery.cancel_scope.cancel()
    assert command.facts is None
    assert command.left == []
    assert not exists(command.text.split()[1])


async def test_a_cancel_after_the_end_ends_what_was_left():
    command = Command("sleep 3141 >/dev/null 2>&1 & setsid sleep 3141 >/dev/null 2>&1 & echo up")
    command.gate = trio.Event()
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(command.run)
            await command.wrote("up")
            await trio.testing.wait_all_tasks_blocked(0.3)
            nursery.cancel_scope.cancel()
    assert command.facts is None
    assert command.left == []


async def test_a_cancel_or_stop_at_any_moment_of_the_start_leaves_nothing():
    commands = []
    with trio.fail_after(PATIENCE):
        for i in range(30):
            cancelled, stopped = (Command("setsid sleep 3141 & sleep 3141") for _ in range(2))
            commands += cancelled, stopped
            with trio.move_on_after(i * 0.0001):
                await cancelled.run()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stopped.run)
                await trio.sleep(i * 0.0001)
                stopped.stop(Status.KILLED)
            assert stopped.facts.status is Status.KILLED
    assert marked(*(command.id for command in commands)) == []


# --- threads that an agent blocks -----------------------------------------------------------------


@pytest.fixture
async def blocked_threads():
    """Forty threads of Trio's default limiter that wait, and the limiter."""
    go = threading.Event()
    limiter = trio.to_thread.current_default_thread_limiter()
    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(trio.to_thread.run_sync, go.wait)
        await trio.testing.wait_all_tasks_blocked()
        assert limiter.available_tokens == 0
        try:
            yield limiter
        finally:
            go.set()


async def test_blocked_threads_do_not_delay_a_start_where_the_limit_is_raised(blocked_threads):
    blocked_threads.total_tokens = 1000  # as the program does
    command = await ran("true")  # while all forty still wait
    assert command.facts.exit_code == 0


async def test_blocked_threads_do_not_delay_an_end(blocked_threads):
    blocked_threads.total_tokens = 41
    command = Command("echo up; setsid sleep 3141 & sleep 3141")
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(command.run)
            await command.wrote("up")
            blocked_threads.total_tokens = 40
            command.stop(Status.KILLED)
    assert command.left == []


async def test_a_stop_ends_the_wait_for_a_thread(blocked_threads):
    command = Command("true")
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(command.run)
            await trio.testing.wait_all_tasks_blocked()
            assert blocked_threads.statistics().tasks_waiting == 1
            command.stop(Status.DEADLINE)
    assert (command.facts.status, command.facts.exit_code, command.facts.seconds) == (
        Status.DEADLINE,
        None,
        0,
    )


# --- no descriptor is left for it -----------------------------------------------------------------


async def test_without_descriptors_it_says_so():
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    command = Command("true")
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(descriptors()) - 1, hard))
    try:
        facts = await command.run()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert facts.status is Status.SPAWN_FAILED
    assert "Too many open files" in facts.error


def test_the_shell_is_named_after_the_command():
    argv = shell_argv("note", 'echo "$0"', ())
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "gateway-trio:note\n"
