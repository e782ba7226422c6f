"""The processes of a command are found by group or marker, and ended, and nobody else is."""

import os
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest
import trio
import trio.testing

from gateway_trio import procfs
from gateway_trio.procscan import belongs, group_exists, kill_group, last_pid

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is only the group elsewhere")


def descriptors():
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


def is_alive(pid):
    """Not by the code under test."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def popen(*argv, **options):
    return subprocess.Popen(argv, **options)


def processes():
    return [entry.name for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def environ(entry):
    try:
        return Path(f"/proc/{entry}/environ").read_bytes()
    except OSError:
        return b""


@pytest.fixture
def start():
    """Run a script as leader of a session, reap the leader, return the group and the numbers that it printed."""
    before = descriptors()
    printed = []

    def run(script, exec_id=None):
        env = dict(os.environ) | ({procfs.MARKER: exec_id} if exec_id else {})
        leader = subprocess.Popen(
            ["/bin/sh", "-c", script], start_new_session=True, stdout=subprocess.PIPE, env=env
        )
        with leader:
            pids = [int(word) for word in leader.stdout.readline().split()]
        printed.extend(pids)
        return leader.pid, pids

    yield run
    assert descriptors() == before
    for pid in printed:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def exec_id():
    return uuid.uuid4().hex


QUIET = "sleep 3141 >/dev/null 2>&1 &"


async def test_group_and_marker_are_each_enough(start, exec_id):
    group, (only_group, only_marker, both) = start(
        f"env -i {QUIET} a=$!; setsid {QUIET} b=$!; {QUIET} echo $a $b $!", exec_id
    )
    stranger, _ = start(f"{QUIET} echo $!", exec_id + "x")
    with trio.fail_after(60):
        assert await procfs.count(procfs.Target(exec_id, group), seconds=50) == 3
        assert await procfs.count(procfs.Target(exec_id), seconds=50) == 2
        assert await procfs.count(procfs.Target("", group), seconds=50) == 2
        assert await procfs.kill(procfs.Target(exec_id, group), seconds=50) == 0
    assert not any(map(is_alive, (only_group, only_marker, both)))
    assert await procfs.count(procfs.Target(exec_id, group), seconds=50) == 0
    assert await procfs.count(procfs.Target("", stranger), seconds=50) == 1


async def test_one_that_left_the_group_long_ago_and_is_deep_is_found(start, exec_id):
    _, (pid,) = start("setsid sh -c 'setsid sleep 3141 >/dev/null 2>&1 & echo $!'", exec_id)
    with trio.fail_after(60):
        assert await procfs.kill(procfs.Target(exec_id), seconds=50) == 0
    assert not is_alive(pid)


async def test_a_group_whose_number_was_given_out_again_is_left_alone(exec_id):
    stranger = subprocess.Popen(["sleep", "3141"], start_new_session=True)  # alive, and nobody's reaped leader
    try:
        target = procfs.Target(exec_id, stranger.pid)
        with trio.fail_after(60):
            assert await procfs.count(target, seconds=50) == 0
            await procfs.kill(target, seconds=50)
        assert is_alive(stranger.pid)
    finally:
        stranger.kill()
        stranger.wait()


async def test_a_group_of_another_session_is_not_ours(exec_id):
    # A job of a shell: its group's number is that of a process which has been reaped, but its session's is not.
    script = "import os,sys; os.setpgid(0,0); p=os.fork(); p and (print(p,flush=True), os._exit(0)); os.execlp('sleep','sleep','3141')"
    job = popen(sys.executable, "-c", script, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    pid = int(job.stdout.readline())
    try:
        job.wait()
        with trio.fail_after(60):
            assert await procfs.count(procfs.Target(exec_id, job.pid), seconds=50) == 0
    finally:
        os.kill(pid, signal.SIGKILL)
        job.stdout.close()


async def test_neither_ourselves_nor_the_dead(exec_id):
    zombie = popen("true", start_new_session=True, env={procfs.MARKER: exec_id})
    fd = os.pidfd_open(zombie.pid)
    try:
        with trio.fail_after(60):
            await trio.lowlevel.wait_readable(fd)  # it has ended, and is not reaped
            assert await procfs.count(procfs.Target(exec_id), seconds=50) == 0
            assert await procfs.kill(procfs.Target(exec_id), seconds=50) == 0
    finally:
        os.close(fd)
        zombie.wait()
    script = f"import sys; from gateway_trio.procscan import belongs, Target; import os; print(belongs(os.getpid(), Target({exec_id!r})))"
    us = popen(sys.executable, "-c", script, env={procfs.MARKER: exec_id}, stdout=subprocess.PIPE)
    assert us.communicate()[0] == b"False\n"


async def test_a_process_whose_first_thread_has_ended_is_alive(start, exec_id):
    program = (
        "import ctypes, os, threading; threading.Thread(target=threading.Event().wait).start();"
        "print(os.getpid(), flush=True); ctypes.CDLL(None).pthread_exit(None)"
    )
    group, (pid,) = start(f"{sys.executable} -c '{program}' &", exec_id)
    with trio.fail_after(60):
        while is_alive(pid):  # its first thread; nothing tells of that
            await trio.lowlevel.checkpoint()
        assert await procfs.count(procfs.Target("", group), seconds=50) == 1
        assert await procfs.kill(procfs.Target("", group), seconds=50) == 0
        assert await procfs.count(procfs.Target("", group), seconds=50) == 0


async def test_only_newer_ones_if_asked(start, exec_id):
    group, (first, second) = start(f"{QUIET} a=$!; {QUIET} echo $a $!", exec_id)
    target = procfs.Target(exec_id, group)
    assert await procfs.count(target, seconds=50, newer_than=group) == 2
    if first < second <= last_pid() <= first + 100:  # not so many came between, nor have the numbers gone round
        assert await procfs.count(target, seconds=50, newer_than=first) == 1
    assert await procfs.count(target, seconds=50, newer_than=2**31) == 2  # the numbers went round: look at all
    await procfs.kill(target, seconds=50)


def test_the_last_number_is_told_and_goes_on():
    before = last_pid()
    child = popen("true")
    child.wait()
    assert before != last_pid()


async def test_a_storm_of_forks_is_ended(exec_id, start):
    program = (
        "import os, signal, time; os.setsid(); signal.signal(15, 1);\n"
        "for _ in range(2): os.fork()\n"
        "print(os.getpid(), flush=True); os.close(1); os.close(2)\n"
        "end = time.monotonic() + 10\n"  # so that a failure leaves nothing behind
        "while time.monotonic() < end:\n"  # each lives for less time than a scan takes
        "  if os.fork(): os._exit(0)"
    )
    start(f"{sys.executable} -c '{program}' & wait", exec_id)
    with trio.fail_after(60):
        assert await procfs.kill(procfs.Target(exec_id), seconds=8) == 0
        assert not any(exec_id.encode() in environ(entry) for entry in processes())


async def test_waiting_for_a_group_ends_when_it_does_and_leaks_nothing(start):
    group, (pid,) = start(f"{QUIET} echo $!")
    with trio.move_on_after(0.05) as scope:
        await procfs.wait_group(group)
    assert scope.cancelled_caught
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(procfs.wait_group, group)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(pid, signal.SIGKILL)
        await procfs.wait_group(group)


async def test_blocked_threads_do_not_delay_it(start, exec_id):
    group, _ = start(f"{QUIET} echo $!", exec_id)
    go = threading.Event()
    limiter = trio.to_thread.current_default_thread_limiter()
    async with trio.open_nursery() as nursery:
        for _ in range(int(limiter.total_tokens)):
            nursery.start_soon(trio.to_thread.run_sync, go.wait)
        await trio.testing.wait_all_tasks_blocked()
        assert limiter.available_tokens == 0
        try:
            with trio.fail_after(60):
                assert await procfs.kill(procfs.Target(exec_id, group), seconds=50) == 0
        finally:
            go.set()


async def test_a_cancel_does_not_wait_and_a_deadline_is_kept(exec_id):
    with trio.CancelScope() as scope:
        scope.cancel()
        await procfs.kill(procfs.Target(exec_id), seconds=50)
    assert scope.cancelled_caught
    assert await procfs.kill(procfs.Target(exec_id), seconds=0) == 0
    assert await procfs.count(procfs.Target(exec_id), seconds=0) == 0


def test_a_descriptor_that_comes_too_late_is_closed():
    before = descriptors()
    pidfds = procfs._Pidfds()
    pidfds.keep(os.pidfd_open(os.getpid()))
    assert len(list(pidfds)) == 1
    pidfds.close()
    pidfds.keep(os.pidfd_open(os.getpid()))
    assert descriptors() == before


def test_what_has_gone_belongs_to_nobody(exec_id):
    child = popen("true", start_new_session=True, env={procfs.MARKER: exec_id})
    child.wait()
    assert not belongs(child.pid, procfs.Target(exec_id, child.pid))
    assert not group_exists(child.pid)
    assert not group_exists(None)


def test_where_there_is_only_the_group(start):
    group, (pid,) = start(f"{QUIET} echo $!")
    assert procfs.supported()
    assert group_exists(group)
    fd = os.pidfd_open(pid)
    kill_group(group)
    assert trio.run(_gone, fd)
    os.close(fd)
    kill_group(group)
    kill_group(None)


async def _gone(fd):
    with trio.fail_after(60):
        await trio.lowlevel.wait_readable(fd)
    return True
