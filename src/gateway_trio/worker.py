"""A thread that takes jobs in the order in which tasks ask for them, as many at once as have come meanwhile.

The order is that of the calls. What is asked for in one pass of the scheduler goes to the thread together, when
the pass is over: a thread that is woken earlier wrests the interpreter from the loop for each job. At most `most`
jobs are with the thread; those beyond wait on Trio's side, each in its task. A batch's tasks are woken together,
with one call into Trio.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import trio
from attrs import define, field

from gateway_trio import log
from gateway_trio.store import StoreUnavailable

__all__ = ["Engine", "Job", "Worker"]

_log = log.get_logger("worker")


@define(eq=False)
class Job:
    """One thing to do. Whoever carries it out sets `result` or `error`."""

    work: Any
    result: Any = None
    error: Exception | None = None
    given_up: bool = False  #: nobody waits for it any more
    done: trio.Event = field(factory=trio.Event)


class Engine(Protocol):
    """What does a worker's jobs. All of it is called on the worker's thread, one at a time."""

    def open(self) -> None:
        """Get ready. What it raises goes to whoever starts the worker; `close` is called then too."""

    def run(self, jobs: Sequence[Job]) -> None:
        """Do these jobs. What it raises is the error of every job that has none."""

    def rest(self) -> bool:
        """Do a little of what is to be done beside jobs; return whether there is more.

        What it raises is logged.
        """

    def close(self) -> None:
        """Let go of everything."""


class Worker:
    """Runs an engine on a thread of its own.

    The thread is a daemon: if its disk never answers, the process can end all the same.

    Args:
      name: The thread's.
      engine: Does the jobs.
      most: How many jobs are with the thread at once. Those beyond wait.
      together: How many of them it does, and answers, as one batch.

    """

    def __init__(self, name: str, engine: Engine, *, most: int, together: int) -> None:
        self._name = name
        self._engine = engine
        self._most = most
        self._together = together
        self._with_thread = 0
        self._asked: deque[Job] = deque()
        self._jobs: queue.SimpleQueue[Sequence[Job]] = queue.SimpleQueue()
        self._taken: list[Job] = []  #: the thread's own
        self._opened = Job(None)
        self._closed: Job | None = None

    async def start(self) -> None:
        """Start the thread and wait until its engine is open. Raises what that raises.

        Cancelling leaves at once; the thread then closes by itself.
        """
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.Thread(target=self._main, name=self._name, daemon=True)
        self._with_thread += 1
        self._thread.start()
        try:
            await self._result(self._opened)
        except BaseException:
            self.close_soon()
            raise

    async def ask(self, work: Any) -> Any:
        """Have a job done and return its result. Raises its error, and `StoreUnavailable` once it is closing.

        Cancelling leaves at once. What the thread has by then, it may do or not.
        """
        if self._closed is not None:
            raise StoreUnavailable("the store is closed")
        job = Job(work)
        self._put(job)
        try:
            return await self._result(job)
        finally:
            if not job.done.is_set():
                job.given_up = True
                with contextlib.suppress(ValueError):  # the thread has it
                    self._asked.remove(job)

    def close_soon(self) -> None:
        """Ask for the thread's end, after everything that was asked for before."""
        if self._closed is None:
            self._closed = Job(None)
            self._put(self._closed)

    async def aclose(self) -> None:
        """Have everything done that was asked for, and wait for the thread's end. Cancelling leaves at once."""
        self.close_soon()
        assert self._closed is not None  # noqa: S101 - just made
        await self._result(self._closed)
        self._thread.join()  # that was its last act

    async def _result(self, job: Job) -> Any:
        await job.done.wait()
        error, job.error = job.error, None
        if error is None:
            return job.result
        try:
            raise error
        finally:
            del error  # its traceback has this frame

    # --- Trio's side of the queue ---

    def _put(self, job: Job) -> None:
        self._asked.append(job)
        if len(self._asked) == 1:
            self._token.run_sync_soon(self._pass_on)

    def _pass_on(self) -> None:
        count = min(len(self._asked), self._most - self._with_thread)
        if count > 0:
            self._with_thread += count
            self._jobs.put([self._asked.popleft() for _ in range(count)])

    def _settled(self, jobs: Sequence[Job]) -> None:
        self._with_thread -= len(jobs)
        for job in jobs:
            job.done.set()
        self._pass_on()

    # --- the thread's ---

    def _main(self) -> None:
        try:
            self._engine.open()
        except Exception as error:  # noqa: BLE001 - it goes to whoever starts
            self._opened.error = error
            self._close_engine(self._opened)
            return
        self._tell([self._opened])
        more = True
        while not (jobs := self._take(wait=not more)) or jobs[-1] is not self._closed:
            self._run(jobs)
            more = self._rest()
        self._run(jobs[:-1])
        self._close_engine(jobs[-1])

    def _take(self, *, wait: bool) -> list[Job]:
        with contextlib.suppress(queue.Empty):
            while len(self._taken) < self._together:
                self._taken += self._jobs.get(block=wait and not self._taken)
        jobs, self._taken = self._taken[: self._together], self._taken[self._together :]
        return jobs

    def _run(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        try:
            self._engine.run(jobs)
        except Exception as error:  # noqa: BLE001 - it goes to whoever asked
            for job in jobs:
                job.error = job.error or error
        self._tell(jobs)

    def _rest(self) -> bool:
        try:
            return self._engine.rest()
        except Exception:  # noqa: BLE001 - the jobs matter more
            _log.exception("a thread's upkeep failed", worker=self._name)
            return False

    def _close_engine(self, last: Job) -> None:
        try:
            self._engine.close()
        except Exception as error:  # noqa: BLE001 - it goes to whoever closes
            last.error = last.error or error
        self._tell([last])

    def _tell(self, jobs: Sequence[Job]) -> None:
        with contextlib.suppress(trio.RunFinishedError):  # then nobody waits
            self._token.run_sync_soon(self._settled, jobs)
