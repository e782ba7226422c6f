"""One call of `ctl`: connect, ask, and what becomes of errors, of signals and of the time."""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import trio
from attrs import define, field, frozen

from gateway_trio.client import Client, ClientError, Lost, Refused, Unauthorized, connect
from gateway_trio.client.target import find_target
from gateway_trio.config import ConfigError
from gateway_trio.core.exits import Exit, exit_of_refusal
from gateway_trio.core.jsonrpc import CLOSES
from gateway_trio.ctl.screen import Screen
from gateway_trio.standard_streams import run_program

__all__ = ["ANSWER_SECONDS", "Stop", "Verb", "run"]

#: How long a call may take where nobody said, all of it: what is asked is answered at once, or not at all.
ANSWER_SECONDS = 30.0

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: What `__main__` holds back until somebody receives it; the other two end `ctl`, as they end most programs.
_HELD = (*_SIGNALS, signal.SIGUSR1, signal.SIGHUP)


@define
class Stop:
    """The first signal: `asked` is set by it, `number` is which one; 0 before it."""

    asked: trio.Event = field(factory=trio.Event)
    number: int = 0


@frozen
class Verb:
    """What is to be asked.

    Args:
        do: asks, writes the result, and returns the exit code. The `Stop` is for the first signal, if
            `stops_first`.
        limit_seconds: the time for all of it where `--timeout` says none; None for no end.
        come_back_seconds: how long a lost connection is tried to be brought back; None without an end.
        counts: whether the gateway is to tell of each change of its counts.
        stops_first: whether a first signal is for `do`; else the first one leaves.
        left: what is so at the gateway where it was left before its end, as a sentence.

    """

    do: Callable[[Client, Screen, Stop], Awaitable[int]]
    limit_seconds: float | None = ANSWER_SECONDS
    come_back_seconds: float | None = 0
    counts: bool = False
    stops_first: bool = False
    left: str = "it may have been done"


def run(verb: Verb, *, url: str | None, config: Path | None, timeout: float | None, as_json: bool) -> int:
    """Ask a gateway and return the exit code.

    Args:
        verb: what.
        url: of the gateway; None for that of the config, else of the environment.
        config: the gateway's; None for none.
        timeout: seconds for all of it; None for the verb's.
        as_json: whether the result is to be one JSON object.

    """
    return run_program(partial(_run, verb, url, config, timeout, as_json=as_json))


def _run(verb: Verb, url: str | None, config: Path | None, timeout: float | None, *, as_json: bool) -> int:
    screen = Screen(as_json=as_json, out=sys.stdout, err=sys.stderr)
    try:
        target, token = find_target(url, config, os.environ)
        open_client = partial(
            connect, target, token=token, counts=verb.counts,
            come_back_seconds=verb.come_back_seconds,
        )  # fmt: skip
        return trio.run(_Call(verb, screen, open_client, verb.limit_seconds if timeout is None else timeout).main)
    except ConfigError as fault:
        return _fail(screen, Exit.CONFIG, "config", f"{config} cannot be used:\n{fault}")


class _Call:
    def __init__(self, verb: Verb, screen: Screen, open_client: Any, limit_seconds: float | None) -> None:
        self._verb = verb
        self._screen = screen
        self._open_client = open_client
        self._limit = math.inf if limit_seconds is None else limit_seconds
        self._stop = Stop()
        self._leave = trio.CancelScope()
        self._signal = 0

    async def main(self) -> int:
        with trio.open_signal_receiver(*_SIGNALS) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive, signals)
                code = await self._attempt()
                nursery.cancel_scope.cancel()
        return code

    async def _receive(self, signals: Any) -> None:
        async for number in signals:
            if self._verb.stops_first and not self._stop.number:
                self._stop.number = number
                self._stop.asked.set()
                self._screen.note("the gateway is asked to end it; once more leaves it")
            else:
                self._signal = number
                self._leave.cancel()

    async def _attempt(self) -> int:
        screen = self._screen
        with self._leave, trio.move_on_after(self._limit):
            try:
                return await self._ask()
            except ClientError as error:
                code, reason, more = _explain(error)
                return _fail(screen, code, reason, str(error), **more)
            except ValueError as fault:  # a URL or a token that can be none
                return _fail(screen, Exit.CONFIG, "config", str(fault))
        if self._signal:
            return _fail(screen, 128 + self._signal, "left", f"left; {self._verb.left}")
        return _fail(screen, Exit.TIMED_OUT, "timeout", f"not done after {self._limit:g} s; {self._verb.left}")

    async def _ask(self) -> int:
        async with self._open_client() as client:
            return await self._verb.do(client, self._screen, self._stop)


def _explain(error: ClientError) -> tuple[int, str, dict[str, Any]]:
    """Return the exit code, the reason and what else programs may want to know."""
    match error:
        case Refused():
            code = exit_of_refusal(error.reason, retryable=error.retryable)
            more = {"retryable": error.retryable, "retryAfterMs": error.retry_after_ms}
            return code, error.reason or "refused", {**more, "reasons": list(error.reasons)}
        case Unauthorized():
            return Exit.NOT_ALLOWED, "unauthorized", {"retryAfterMs": error.retry_after_ms}
        case Lost(code=code) if code in (CLOSES["revoked"].code, CLOSES["policy"].code):
            return Exit.NOT_ALLOWED, "unauthorized", {"close": code}
        case Lost(code=code):
            return Exit.UNREACHABLE, "lost", {"close": code}
        case _:
            return Exit.UNREACHABLE, "unreachable", {}


def _fail(screen: Screen, code: int, reason: str, message: str, **more: Any) -> int:
    screen.failure({"reason": reason, "message": message, "exit": int(code), **more}, message)
    return int(code)
