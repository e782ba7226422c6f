"""What only the program does: signals, exit codes, the log, the report. A library never touches these.

SIGTERM, SIGINT   first: drain. second: cancel turns now, little time for execs. third: out, at once.
SIGUSR1           drain for a restart, if the config can be used
SIGHUP            read the config again, if it can be used

0 drained · 75 restart · 78 config, port, bind or store that cannot be used · 1 a bug · 128+n forced
"""

from __future__ import annotations

import faulthandler
import gc
import json
import math
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import trio

from gateway_trio import log
from gateway_trio.agents import Agent, AgentUnusable
from gateway_trio.choose_store import choose_store, store_path
from gateway_trio.config import Config, ConfigError, load_config, secrets
from gateway_trio.core.lifecycle import Action, Reason
from gateway_trio.gateway import Gateway
from gateway_trio.report import DrainReport
from gateway_trio.server import UnsafeBind, serve
from gateway_trio.store import StoreUnavailable

__all__ = ["EX_CONFIG", "EX_TEMPFAIL", "run"]

EX_TEMPFAIL = 75  #: sysexits.h: come again; what a supervisor restarts on
EX_CONFIG = 78  #: sysexits.h: something was configured wrong

#: Signals that come within this time are one: a terminal and a supervisor may both send theirs.
_ONE_SIGNAL_SECONDS = 0.25

#: What a drain may take beyond its budget until the process is ended from outside the loop.
_WATCHDOG_SECONDS = 5.0

#: Of Trio's default limiter.
_THREADS = 1000

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)

_log = log.get_logger("process")


class _Program:
    """One run of the program."""

    def __init__(self, config: Config, path: Path | None, report: Path | None, agent: Agent | None) -> None:
        self._config = config
        self._agent = agent
        self._path = path
        self._report = report
        self._gateway: Gateway | None = None
        self._asked = 0
        self._last_signal = float("-inf")
        self._early: int | None = None  #: a signal that came before the gateway stood
        self._reload_early = False  #: and whether SIGHUP did: the file may have changed since it was read
        self.exit_code = 0

    async def main(self) -> None:
        # Agents may call `to_thread` whatever they are told, and `trio.run_process` needs a free thread too.
        trio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        with trio.open_signal_receiver(*SIGNALS) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive, signals)
                serving = partial(
                    serve,
                    self._config,
                    agent=self._agent,
                    store=choose_store(self._config.store, os.environ),
                    check_restart=self._check_restart,
                    read_config=None if self._path is None else self._read_config,
                )
                start = partial(nursery.start, serving)
                self._gateway = await self._start(start)
                if self._gateway is not None:
                    self._gateway.coordinator.on(Action.MOVE_DEADLINES, partial(self._watch, self._gateway))
                    self._say_hello(self._gateway)
                    if self._early is not None:
                        self._signalled(self._early)
                    elif self._reload_early:
                        self._signalled(signal.SIGHUP)
                    _settle_memory()
                    await self._gateway.closed.wait()
                    faulthandler.cancel_dump_traceback_later()
                    self._say_goodbye(self._gateway)
                nursery.cancel_scope.cancel()

    async def _start(self, start: Any) -> Gateway | None:
        with trio.CancelScope() as self._starting:
            return await start()  # type: ignore[no-any-return]
        return None

    async def _check_restart(self) -> str | None:
        """Return why the config file cannot be used, None if it can."""
        if self._path is None:
            return None
        try:
            await self._read_config()
        except ConfigError as fault:
            return str(fault)
        return None

    async def _read_config(self) -> Config:
        """Read the config file again. Raises `ConfigError`; cancelling waits for the file system."""
        assert self._path is not None  # noqa: S101 - it is not asked without one
        return await trio.to_thread.run_sync(load_config, self._path, os.environ)

    # --- signals ---

    async def _receive(self, signals: Any) -> None:
        async for number in signals:
            self._signalled(number)

    def _signalled(self, number: int) -> None:
        name = signal.Signals(number).name
        _log.info("signal", signal=name)
        if self._gateway is None and number == signal.SIGHUP:
            self._reload_early = True
            return
        if self._gateway is None:
            self._early = number
            self.exit_code = EX_TEMPFAIL if number == signal.SIGUSR1 else 0
            self._starting.cancel()
            return
        coordinator = self._gateway.coordinator
        if number == signal.SIGUSR1:
            self._gateway.control.restart(
                name,
                lambda answer: _log.info("restart", answer=answer),
                lambda fault: _log.warning("restart refused", reason=fault.reason, why=fault.message),
            )
            return
        if number == signal.SIGHUP:
            # What came of it is logged by `reload` itself; here nobody else waits for it.
            self._gateway.control.reload(
                name, lambda _: None, lambda fault: _log.warning("reload refused", reason=fault.reason)
            )
            return
        now = trio.current_time()
        repeated = now - self._last_signal < _ONE_SIGNAL_SECONDS
        self._last_signal = now
        if repeated:
            return
        self._asked += 1
        if self._asked == 1:
            coordinator.drain(Reason.SHUTDOWN, by=name)
        elif self._asked == 2:  # noqa: PLR2004 - the table above
            coordinator.hurry(by=name)
        else:
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

    # --- what is said ---

    def _say_hello(self, gateway: Gateway) -> None:
        host, port = gateway.addresses[0][:2]
        shown = f"[{host}]" if ":" in host else host
        base = f"ws://{shown}:{port}"
        print(f"gateway-trio, pid {os.getpid()}: {base}/chat and {base}/acp", flush=True)
        _log.info("open", pid=os.getpid(), addresses=[f"{a[0]}:{a[1]}" for a in gateway.addresses])
        if gateway.store.durable:
            _log.info("store", path=str(store_path(self._config.store, os.environ)))
        else:
            _log.warning("sessions are kept in memory only and are forgotten at exit")
        if gateway.entrance.tokens:
            _log.info("tokens", names=[token.name for token in self._config.auth.tokens])
        else:
            _log.warning("no tokens are configured: everyone on loopback is admin")
        _, short = secrets(self._config, os.environ)
        for name in short:
            _log.warning("a value is too short to be kept out of an exec's output", variable=name)

    def _say_goodbye(self, gateway: Gateway) -> None:
        """Write the report and log it; end here and now if an agent's body cannot be ended."""
        report = gateway.report
        assert report is not None  # noqa: S101 - `closed` is set after it
        self.exit_code = EX_TEMPFAIL if report.reason == "restart" else 0
        _log.info("drained", **report.to_json())
        if self._report is not None:
            self._write_report(report, self._report)
        if report.turns_abandoned or report.cut:
            gateway.execs.kill_now()
            self._exit_now(self.exit_code)

    def _exit_now(self, code: int) -> NoReturn:
        """Exit although tasks or threads still run that cannot be ended."""
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _write_report(self, report: DrainReport, path: Path) -> None:
        try:
            path.write_text(json.dumps(report.to_json(), indent=2) + "\n")
        except OSError as fault:
            _log.warning("the report could not be written", path=str(path), error=str(fault))


def _settle_memory() -> None:
    """Let the collector pass over what start-up left, and look less often: it costs most in a drain's rush."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def run(path: Path | None, report: Path | None, *, agent: Agent | None = None) -> int:
    """Serve until told to stop, and return the exit code.

    `agent` answers prompts in a program of one's own; None for the one that the config names.
    """
    log.configure()
    try:
        config = Config() if path is None else load_config(path, os.environ)
    except ConfigError as fault:
        print(f"{path or 'config'} cannot be used:\n{fault}", file=sys.stderr)
        return EX_CONFIG
    program = _Program(config, path, report, agent)
    faults: list[str] = []
    try:
        trio.run(program.main)
    except* (UnsafeBind, AgentUnusable, StoreUnavailable) as group:
        faults += map(str, _leaves(group))
    except* OSError as group:
        faults += (f"cannot listen on {config.server.host} port {config.server.port}: {e}" for e in _leaves(group))
    for line in faults:
        print(f"gateway-trio does not start: {line}", file=sys.stderr)
    return EX_CONFIG if faults else program.exit_code


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for part in error.exceptions for leaf in _leaves(part)]
    return [error]
