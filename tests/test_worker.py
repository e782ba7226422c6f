"""A thread that takes jobs in the order of the calls, many at once, and never keeps a task or the process."""

import itertools
import subprocess
import sys
import threading

import pytest
import trio

from gateway_trio.store import StoreUnavailable
from gateway_trio.worker import Worker


class Scripted:
    """An engine whose jobs are functions. `batches` has what came together; `going` holds it up while it is clear."""

    def __init__(self, *, opening=None, closing=None):
        self.batches = []
        self.going = threading.Event()
        self.going.set()
        self.rests = itertools.repeat(False)
        self.opening, self.closing = opening, closing
        self.steps = []

    def open(self):
        self.going.wait(60)
        self.steps.append("open")
        if self.opening is not None:
            raise self.opening

    def run(self, jobs):
        self.going.wait(60)
        self.batches.append([job.work for job in jobs])
        for job in jobs:
            if isinstance(job.work, Exception):
                raise job.work
            job.result = job.work

    def rest(self):
        self.steps.append("rest")
        return next(self.rests)

    def close(self):
        self.steps.append("close")
        if self.closing is not None:
            raise self.closing


@pytest.fixture
def engine():
    scripted = Scripted()
    yield scripted
    scripted.going.set()


@pytest.fixture
async def limit():
    with trio.fail_after(60):
        yield


async def started(engine, *, most=1000, together=100):
    worker = Worker("test", engine, most=most, together=together)
    await worker.start()
    return worker


async def ask_all(worker, number):
    """Ask for this many jobs at once; return what each was in the order of the calls, and its result."""
    numbers, results = itertools.count(), {}

    async def ask():
        n = next(numbers)
        results[n] = await worker.ask(n)

    async with trio.open_nursery() as nursery:
        for _ in range(number):
            nursery.start_soon(ask)
    return results


@pytest.mark.parametrize(("most", "together"), [(1000, 1000), (7, 1000), (7, 3), (1, 1), (1000, 3)])
async def test_jobs_are_done_in_the_order_of_the_calls(limit, engine, most, together):
    worker = await started(engine, most=most, together=together)
    assert await ask_all(worker, 200) == {n: n for n in range(200)}
    assert list(itertools.chain(*engine.batches)) == list(range(200))
    assert max(map(len, engine.batches)) <= min(most, together)
    await worker.aclose()


async def test_what_comes_while_it_works_is_done_together(limit, engine):
    worker = await started(engine, most=60, together=50)
    engine.going.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.ask, "first")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask_all, worker, 100)
        await trio.testing.wait_all_tasks_blocked()
        engine.going.set()
    # The first one stood alone or not, by when the thread looked; those beyond `most` came when there was room.
    assert max(map(len, engine.batches)) == 50
    await worker.aclose()


async def test_what_is_asked_for_in_one_pass_comes_together_and_not_before_its_end(limit, engine):
    worker = await started(engine)
    came = threading.Event()
    run, engine.run = engine.run, lambda jobs: (came.set(), run(jobs))
    early = []

    async def hold_the_pass():
        early.append(came.wait(0.01))

    async with trio.open_nursery() as nursery:
        for _ in range(20):  # in an order that is Trio's
            nursery.start_soon(worker.ask, "x")
            nursery.start_soon(hold_the_pass)
    assert early == [False] * 20
    assert engine.batches == [["x"] * 20]
    await worker.aclose()


async def test_one_that_waits_on_this_side_and_is_given_up_is_not_done(limit, engine):
    worker = await started(engine, most=1, together=1)
    engine.going.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.ask, "first")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0) as scope:
            await worker.ask("given up")
        assert scope.cancelled_caught
        nursery.start_soon(worker.ask, "last")
        await trio.testing.wait_all_tasks_blocked()
        engine.going.set()
    await worker.aclose()
    assert engine.batches == [["first"], ["last"]]


async def test_one_that_the_thread_has_is_marked_as_given_up(limit, engine):
    worker = await started(engine)
    engine.going.clear()
    seen = []
    engine.run = lambda jobs: (engine.going.wait(60), seen.extend(job.given_up for job in jobs))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.ask, "x")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    engine.going.set()
    assert await worker.ask("y") is None
    assert seen == [True, False]
    await worker.aclose()


async def test_a_job_that_raises_fails_for_whoever_asked_and_the_thread_lives(limit, engine):
    worker = await started(engine)
    with pytest.raises(ZeroDivisionError):
        await worker.ask(ZeroDivisionError("a bug"))
    assert await worker.ask(1) == 1
    await worker.aclose()


async def test_it_does_what_is_left_while_nothing_is_asked(limit, engine):
    engine.rests = itertools.chain([True] * 5, itertools.repeat(False))
    worker = await started(engine)
    await worker.ask(1)
    await worker.aclose()
    assert engine.steps.count("rest") >= 1
    assert engine.steps[-1] == "close"


async def test_upkeep_that_raises_is_logged_and_the_thread_lives(limit, engine, caplog):
    engine.rests = iter(())  # StopIteration
    worker = await started(engine)
    for n in range(3):
        assert await worker.ask(n) == n
    await worker.aclose()
    assert "upkeep failed" in caplog.text


async def test_closing_comes_after_everything_that_was_asked_for(limit, engine):
    worker = await started(engine, most=3, together=2)
    engine.going.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_all, worker, 50)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(worker.aclose)
        nursery.start_soon(worker.aclose)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(StoreUnavailable, match="closed"):
            await worker.ask("late")
        engine.going.set()
    assert list(itertools.chain(*engine.batches)) == list(range(50))
    assert engine.steps[-1] == "close"
    assert "test" not in {thread.name for thread in threading.enumerate()}
    await worker.aclose()


async def test_closing_that_is_given_up_leaves_at_once_and_happens_later(limit, engine):
    worker = await started(engine)
    engine.going.clear()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.ask, "stuck")
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0) as scope:
            await worker.aclose()
        assert scope.cancelled_caught
        assert "close" not in engine.steps
        engine.going.set()
    await worker.aclose()
    assert engine.steps[-1] == "close"


async def test_what_cannot_be_opened_says_why_and_is_closed(limit):
    engine = Scripted(opening=StoreUnavailable("why"))
    with pytest.raises(StoreUnavailable, match="why"):
        await started(engine)
    assert engine.steps == ["open", "close"]


async def test_what_goes_wrong_at_the_end_is_told_to_whoever_closes(limit):
    worker = await started(Scripted(closing=ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        await worker.aclose()


async def test_starting_that_is_given_up_leaves_at_once_and_closes_by_itself(limit, engine):
    engine.going.clear()
    worker = Worker("test", engine, most=1, together=1)
    with trio.move_on_after(0) as scope:
        await worker.start()
    assert scope.cancelled_caught
    engine.going.set()
    await trio.to_thread.run_sync(worker._thread.join, 60)
    assert engine.steps[0] == "open"
    assert engine.steps[-1] == "close"


def test_a_run_that_is_over_hurts_no_thread(engine):
    workers = []

    async def main():
        worker = await started(engine)
        workers.append(worker)
        engine.going.clear()
        with trio.move_on_after(0):
            await worker.ask("stuck")
        worker.close_soon()

    trio.run(main)
    engine.going.set()
    workers[0]._thread.join(60)
    assert not workers[0]._thread.is_alive()
    assert engine.steps[-1] == "close"


def test_a_thread_that_is_stuck_does_not_keep_the_process():
    program = """
import threading, trio, trio.testing
from gateway_trio.worker import Worker

class Stuck:
    def open(self): pass
    def run(self, jobs): threading.Event().wait()
    def rest(self): return False
    def close(self): pass

async def main():
    worker = Worker("stuck", Stuck(), most=1, together=1)
    await worker.start()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.ask, 1)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0):
            await worker.aclose()
        nursery.cancel_scope.cancel()
    print("out", flush=True)

trio.run(main)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout, run.stderr) == (0, "out\n", "")
