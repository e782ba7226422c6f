"""Whether a gateway would come up: asked before one goes down for a restart, and by `gateway-trio check`.

`faults` tries what a start does before it listens, and `program_fault` does that in a process of its own: what is
installed may be another program by now than the one that runs.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Mapping, Sequence

import trio

from gateway_trio.agents import AgentUnusable
from gateway_trio.agents.choose import chosen
from gateway_trio.config import Config, is_loopback
from gateway_trio.execs import Limits, Spawn, Status, Stop, run_exec

__all__ = ["CHECK_SECONDS", "faults", "program_fault"]

#: For a program to load and look at its config. It takes a second or two; a machine may be busy.
CHECK_SECONDS = 60.0

#: Of what such a program says: more than that of faults helps nobody.
_SAID_CHARS = 2000
_SAID_BYTES = 65536

#: What is the gateway's own business with its supervisor.
_OURS = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


async def faults(config: Config, environ: Mapping[str, str]) -> list[str]:
    """Return why a gateway could not start with this config here; nothing listens, and no agent is asked anything.

    Cancelling is safe.
    """
    found = []
    try:
        async with chosen(config.agent, environ, None, close_seconds=config.drain.cleanup_seconds):
            pass
    except AgentUnusable as fault:
        found.append(str(fault))
    server = config.server
    try:
        places = await trio.socket.getaddrinfo(
            server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as fault:  # the second: a name that the resolver cannot write
        why = getattr(fault, "strerror", None) or fault
        found.append(f"server.host: {server.host!r} is no address of this machine: {why}")
    else:
        exposed = [str(place[4][0]) for place in places if not is_loopback(str(place[4][0]))]
        if exposed and not config.auth.tokens:
            found.append(f"server.host: {exposed[0]} can be reached by others, and there are no tokens")
    return found


async def program_fault(
    argv: Sequence[str], hidden: tuple[str, ...], seconds: float = CHECK_SECONDS
) -> str | None:
    """Run a program that looks whether it would come up, and return in words why not, or None.

    Args:
        argv: the program. It is good if it exits with 0; else what it prints says why.
        hidden: values that what it prints must not show.
        seconds: for it to end, from its start.

    It runs as an exec does, but in this process's directory and environment, without its supervisor. Cancelling
    kills it.

    """
    said: list[str] = []

    async def hear(text: str) -> None:
        said.append(text)

    environ = {name: value for name, value in os.environ.items() if name not in _OURS}
    facts = await run_exec(
        Spawn(f"check-{secrets.token_hex(8)}", tuple(argv), environ, "."),
        Limits(seconds, term_seconds=2, background="kill", output_bytes=_SAID_BYTES, secrets=hidden),
        Stop(),
        hear,
    )
    if facts.status is Status.EXITED and facts.exit_code == 0:
        return None
    ended = {
        Status.EXITED: f"exit code {facts.exit_code}",
        Status.SIGNALLED: f"signal {facts.signal}",
        Status.TIMEOUT: f"no end in {seconds:g} s",
    }.get(facts.status, facts.error or facts.status.value)
    return f"{ended}: {''.join(said).strip()[-_SAID_CHARS:]}".rstrip(": ")
