"""What is asked of a gateway, and what is said of its answer."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import trio

from gateway_trio.client import Client, ExecFacts
from gateway_trio.core.exits import Exit, exit_of_exec
from gateway_trio.core.facts import closing_line
from gateway_trio.core.glance import glance
from gateway_trio.core.waits import Outcome, drain_is_over, exit_of_outcome, restart_is_over
from gateway_trio.ctl.run import Stop, Verb
from gateway_trio.ctl.screen import Screen
from gateway_trio.ctl.waiting import wait_until

__all__ = ["drain", "exec_", "kill", "restart", "status", "undrain"]

#: Who watches a drain comes back for so long; a gateway that is gone for longer tells nothing of it.
_WATCH_SECONDS = 60.0

_UNDRAIN = "`gateway-trio ctl undrain`"

_SENTENCES: Mapping[Outcome, str] = {
    Outcome.DRAINED: "drained: no turn runs any more",
    Outcome.BACK: "the gateway is back, and open",
    Outcome.TAKEN_BACK: "not done: it was taken back",
    Outcome.RESTARTED: "not done: the gateway was started anew, and the drain is gone",
    Outcome.SHUT_DOWN: "not done: the gateway shuts down",
}


def status() -> Verb:
    """Show the status."""

    async def do(client: Client, screen: Screen, _: Stop) -> int:
        told = await client.status()
        screen.table(told, glance(told, now=time.time(), when=_when))
        return Exit.DONE

    return Verb(do, left="nothing was changed")


def drain(why: str, *, wait: bool) -> Verb:
    """Drain for the reason `operator`; with `wait`, until no turn runs."""
    left = f"the drain stays as it is, until {_UNDRAIN}"

    async def do(client: Client, screen: Screen, _: Stop) -> int:
        began = trio.current_time()
        losses = client.losses
        told = await client.drain(why)
        if not wait:
            return _done(screen, told, f"{_where(told)}: no turn starts until {_UNDRAIN}")
        with screen.progress() as shown:
            outcome = await wait_until(drain_is_over, client, told.get("started"), losses, shown)
        return _over(screen, outcome, began)

    return _waiting(do, left=left, come_back_seconds=_WATCH_SECONDS) if wait else Verb(do, left=left)


def undrain(reason: str) -> Verb:
    """Take a reason back."""

    async def do(client: Client, screen: Screen, _: Stop) -> int:
        told = await client.undrain(reason)
        if told.get("phase") == "open":
            return _done(screen, told, "open")
        if told.get("phase") == "draining" and reason not in (told.get("reasons") or ()):
            return _done(screen, told, f"still {_where(told)}")
        message = f"{_where(told)}: that cannot be taken back"
        screen.failure({"reason": "too_late", "message": message, "exit": int(Exit.REFUSED)}, message)
        return Exit.REFUSED

    return Verb(do)


def restart(*, wait: bool) -> Verb:
    """Restart; with `wait`, until the gateway is back and open."""

    async def do(client: Client, screen: Screen, _: Stop) -> int:
        began = trio.current_time()
        losses = client.losses
        told = await client.status()
        if wait and _runs_inside(told):
            message = "this runs inside the gateway, whose drain would wait for it: restart without --wait"
            screen.failure({"reason": "own_exec", "message": message, "exit": int(Exit.REFUSED)}, message)
            return Exit.REFUSED
        message = await client.restart()
        if not wait:
            screen.result({"outcome": "restarting", "message": message}, message)
            return Exit.DONE
        with screen.progress() as shown:
            outcome = await wait_until(restart_is_over, client, told.get("started"), losses, shown)
        return _over(screen, outcome, began)

    left = f"the restart goes on, unless {_UNDRAIN} takes it back in time"
    return (
        _waiting(do, left=left, come_back_seconds=None) if wait else Verb(do, left="it may restart all the same")
    )


def exec_(name: str, args: Sequence[str]) -> Verb:
    """Run a quick command; its output is ours, and its exit code."""

    async def do(client: Client, screen: Screen, stop: Stop) -> int:
        facts = await client.exec(name, args, stop=stop.asked)
        if screen.as_json:
            screen.table(facts.data, ())
        else:
            screen.output(facts.output)
            if line := closing_line(_facts(facts), silent=False):
                screen.note(line)
        if stop.number and facts.status == "cancelled":
            return 128 + stop.number
        return exit_of_exec(facts.status, facts.exit_code, facts.signal)

    return Verb(do, limit_seconds=None, stops_first=True, left="the command may go on at the gateway")


def kill(id_: str) -> Verb:
    """End a running quick command."""

    async def do(client: Client, screen: Screen, _: Stop) -> int:
        await client.kill(id_)
        screen.result({"outcome": "killing", "id": id_}, f"killing {id_}")
        return Exit.DONE

    return Verb(do)


_waiting = partial(Verb, counts=True, limit_seconds=None)


def _where(told: Mapping[str, Any]) -> str:
    return f"{told.get('phase')} because of {', '.join(map(str, told.get('reasons') or ()))}"


def _done(screen: Screen, told: Mapping[str, Any], said: str) -> int:
    screen.result({"outcome": told.get("phase"), "status": told}, said)
    return Exit.DONE


def _over(screen: Screen, outcome: Outcome, began: float) -> int:
    code, seconds = exit_of_outcome(outcome), round(trio.current_time() - began, 3)
    said = f"{_SENTENCES[outcome]}, after {seconds:.3f} s"
    if code is Exit.DONE:
        screen.result({"outcome": outcome.value, "seconds": seconds}, said)
    else:
        facts = {"reason": outcome.value, "message": said, "exit": int(code), "seconds": seconds}
        screen.failure(facts, said)
    return code


def _runs_inside(told: Mapping[str, Any]) -> bool:
    """Whether this process belongs to an exec of the gateway that told this status."""
    own = os.environ.get("GATEWAY_TRIO_EXEC_ID")
    return own is not None and any(exec_.get("id") == own for exec_ in told.get("running") or ())


def _facts(facts: ExecFacts) -> Mapping[str, Any]:
    return {
        "status": facts.status,
        "exitCode": facts.exit_code,
        "signal": facts.signal,
        "seconds": facts.seconds,
        "background": facts.background,
        "backgroundEnded": facts.data.get("backgroundEnded", False),
        "error": facts.error,
    }


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
