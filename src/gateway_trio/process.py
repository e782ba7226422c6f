"""What only the program does: exit codes, the log, the report; signals and its supervisor, with their own modules.

A library never touches these.

A restart ends the process with 75, or replaces it by exec: same number, same words, its port open all the while.

0 drained · 75 restart · 78 config, port, bind or store that cannot be used · 1 a bug · 128+n forced
"""

from __future__ import annotations

import faulthandler
import gc
import math
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import trio

from gateway_trio import log
from gateway_trio.agents import Agent, AgentUnusable
from gateway_trio.announcements import say_hello, write_report
from gateway_trio.choose_store import choose_store
from gateway_trio.config import Config, ConfigError, load_config, secrets
from gateway_trio.core.lifecycle import Action
from gateway_trio.core.supervision import is_supervised
from gateway_trio.gateway import Gateway
from gateway_trio.handover import Handover
from gateway_trio.preflight import program_fault
from gateway_trio.sd_notify import Supervisor
from gateway_trio.server import UnsafeBind, serve
from gateway_trio.signals import SIGNALS, Signals
from gateway_trio.store import StoreUnavailable

__all__ = ["EX_CONFIG", "EX_TEMPFAIL", "run"]

EX_TEMPFAIL = 75  #: sysexits.h: come again; what a supervisor restarts on
EX_CONFIG = 78  #: sysexits.h: something was configured wrong

#: What a drain may take beyond its budget until the process is ended from outside the loop.
_WATCHDOG_SECONDS = 5.0

#: Of Trio's default limiter.
_THREADS = 1000

_log = log.get_logger("process")


class _Program:
    """One run of the program."""

    def __init__(
        self,
        config: Config,
        path: Path | None,
        report: Path | None,
        agent: Agent | None,
        check: Sequence[str] | None,
    ) -> None:
        self._config = config
        self._agent = agent
        self._path = path
        self._report = report
        self._check = check
        self._handover = Handover(os.environ, config.server)
        in_place = {"exec": True, "exit": False, "auto": not is_supervised(os.environ, os.getpid())}
        self._in_place = in_place[config.server.restart]
        self._supervisor = Supervisor(os.environ, in_place=self._in_place, beyond=_WATCHDOG_SECONDS)
        self._gateway: Gateway | None = None
        self._starting = trio.CancelScope()
        self._signals = Signals(self._starting, self._force)
        self.exit_code = 0

    async def main(self) -> None:
        # Agents may call `to_thread` whatever they are told, and `trio.run_process` needs a free thread too.
        trio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        if self._in_place:
            self._signals.outlive()
        with trio.open_signal_receiver(*SIGNALS) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._signals.receive, signals)
                serving = partial(
                    serve,
                    self._config,
                    agent=self._agent,
                    store=choose_store(self._config.store, os.environ),
                    listeners=self._handover.listeners(),
                    check_restart=self._check_restart,
                    read_config=None if self._path is None else self._read_config,
                )
                start = partial(nursery.start, serving)
                self._gateway = await self._start(start)
                if self._gateway is not None:
                    self._gateway.coordinator.on(Action.MOVE_DEADLINES, partial(self._watch, self._gateway))
                    self._handover.follow(self._gateway, in_place=self._in_place)
                    self._supervisor.attach(self._gateway)
                    nursery.start_soon(self._supervisor.keep_alive)
                    say_hello(self._gateway, self._config, os.environ)
                    self._signals.attach(self._gateway)
                    _settle_memory()
                    await self._gateway.closed.wait()
                    faulthandler.cancel_dump_traceback_later()
                    await self._say_goodbye(self._gateway)
                nursery.cancel_scope.cancel()
            if self._gateway is None:
                self.exit_code = EX_TEMPFAIL if self._signals.early == signal.SIGUSR1 else 0
            if self.replaces:
                # What nobody has taken yet is sent again when the receiver closes, and waits for the successor.
                signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)

    async def _start(self, start: Any) -> Gateway | None:
        with self._starting:
            return await start()  # type: ignore[no-any-return]
        return None

    @property
    def replaces(self) -> bool:
        """Whether the program is to begin anew in this process, now that it has come to its end."""
        return self._in_place and self.exit_code == EX_TEMPFAIL

    async def _check_restart(self) -> str | None:
        """Return why the config file, or what is installed by now, cannot be used, None if both can."""
        if self._path is not None:
            try:
                await self._read_config()
            except ConfigError as fault:
                return f"the new config is broken:\n{fault}"
        if self._check is None:
            return None
        words = (*self._check, *(() if self._path is None else (str(self._path),)))
        why = await program_fault(words, secrets(self._config, os.environ)[0])
        return why and f"the program would not come up again:\n{why}"

    async def _read_config(self) -> Config:
        """Read the config file again. Raises `ConfigError`; cancelling waits for the file system."""
        assert self._path is not None  # noqa: S101 - it is not asked without one
        return await trio.to_thread.run_sync(load_config, self._path, os.environ)

    def _force(self, number: int) -> NoReturn:
        """End with every exec, at once: the third signal."""
        assert self._gateway is not None  # noqa: S101 - it was told of the first two
        self._gateway.execs.kill_now()
        self._exit_now(128 + number)

    def _watch(self, gateway: Gateway) -> None:
        """Bound a drain from outside the loop too: one that is frozen can neither drain nor look at a clock.

        A thread of `faulthandler`, which needs neither the loop nor the interpreter, then shows every stack and
        exits with 1.
        """
        ends = gateway.coordinator.state.ends
        if ends == math.inf:
            faulthandler.cancel_dump_traceback_later()
        else:
            left = max(ends - trio.current_time(), 0) + _WATCHDOG_SECONDS
            faulthandler.dump_traceback_later(left, exit=True)

    def replace_process(self) -> int:
        """Begin anew in this process; return the exit code if that cannot be."""
        self._signals.leave()
        try:
            self._handover.replace_process()
        except OSError as fault:
            _log.error("the process could not be replaced, and exits for a restart", error=str(fault))
        return EX_TEMPFAIL

    async def _say_goodbye(self, gateway: Gateway) -> None:
        """Write the report and log it; end here and now if an agent's body cannot be ended."""
        report = gateway.report
        assert report is not None  # noqa: S101 - `closed` is set after it
        self.exit_code = EX_TEMPFAIL if report.reason == "restart" else 0
        if self.replaces:
            await self._signals.hold()
        _log.info("drained", **report.to_json())
        if self._report is not None:
            write_report(report, self._report)
        if report.turns_abandoned or report.cut:
            gateway.execs.kill_now()
            self._exit_now(self.replace_process() if self.replaces else self.exit_code)

    def _exit_now(self, code: int) -> NoReturn:
        """Exit although tasks or threads still run that cannot be ended."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _settle_memory() -> None:
    """Let the collector pass over what start-up left, and look less often: it costs most in a drain's rush."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def run(
    path: Path | None, report: Path | None, *, agent: Agent | None = None, check: Sequence[str] | None = None
) -> int:
    """Serve until told to stop, and return the exit code.

    A restart in place (`server.restart`) does not return: the process starts again with the words that it has.

    Args:
        path: of the config; None for every default.
        report: where to write the report of the drain; None for nowhere.
        agent: answers prompts in a program of one's own; None for the one that the config names.
        check: a program, with its arguments but the config's path, which is added, that exits with 0 if this one
            would come up again; it is run before a restart. None: only the config is looked at.

    """
    log.configure()
    try:
        config = Config() if path is None else load_config(path, os.environ)
    except ConfigError as fault:
        print(f"{path or 'config'} cannot be used:\n{fault}", file=sys.stderr)
        return EX_CONFIG
    faults: list[str] = []
    try:
        program = _Program(config, path, report, agent, check)
        trio.run(program.main)
    except* (UnsafeBind, AgentUnusable, StoreUnavailable) as group:
        faults += map(str, _leaves(group))
    except* OSError as group:
        faults += (f"cannot listen on {config.server.host} port {config.server.port}: {e}" for e in _leaves(group))
    for line in faults:
        print(f"gateway-trio does not start: {line}", file=sys.stderr)
    if faults:
        return EX_CONFIG
    return program.replace_process() if program.replaces else program.exit_code


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]
