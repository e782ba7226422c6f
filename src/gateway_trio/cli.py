"""The command line: `gateway-trio serve`, `check`, `chat`, `ctl` and `sessions`."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import trio
from cyclopts import App, Parameter

import gateway_trio
from gateway_trio.chat.command import chat
from gateway_trio.config import Config, ConfigError, load_config
from gateway_trio.core.exits import Exit
from gateway_trio.core.handover import program
from gateway_trio.core.kinds import ExecCommand
from gateway_trio.standard_streams import run_program

__all__ = ["app"]

app = App(
    name="gateway-trio",
    help="An agent gateway that goes down well.",
    version=gateway_trio.__version__,
    backend="trio",
)

app.command(chat)


@app.command
def serve(
    *,
    config: Annotated[Path | None, Parameter(help="The config, TOML. Without it every default holds.")] = None,
    report: Annotated[Path | None, Parameter(help="Where to write the report of the drain, JSON.")] = None,
) -> int:
    """Run the gateway until SIGTERM or SIGINT (exit 0). At a restart it exits with 75, or begins anew."""
    from gateway_trio.process import run  # noqa: PLC0415 - `ctl` needs nothing of what serves

    check = (*program(sys.executable, sys.orig_argv, sys.argv), "check")
    return run(config, report, check=check)


@app.command
def check(file: Path | None = None) -> int:
    """Say whether a config can be used here; every fault at once. Without a file: every default."""
    return run_program(partial(_check, file))


def _check(file: Path | None) -> int:
    try:
        config = Config() if file is None else load_config(file, os.environ)
    except ConfigError as fault:
        print(fault, file=sys.stderr)
        return Exit.CONFIG
    from gateway_trio.preflight import faults  # noqa: PLC0415 - likewise

    found = trio.run(faults, config, os.environ)
    if found:
        print(*found, sep="\n", file=sys.stderr)
        return Exit.CONFIG
    execs = sum(isinstance(command, ExecCommand) for command in config.quick_commands.values())
    print(f"{file or 'every default'}: good, {execs} exec and {len(config.quick_commands) - execs} alias commands")
    return 0


#: The token is read from the environment only, as arguments stand in the list of processes.
CTL_HELP = "Ask a running gateway, drain it, restart it. GATEWAY_TRIO_TOKEN has the token."

# Loaded when it is used: what it runs on is no business of `serve`.
app.command("gateway_trio.ctl.app:app", name="ctl", help=CTL_HELP)
SESSIONS_HELP = "List, show and export the sessions of a running gateway. GATEWAY_TRIO_TOKEN has the token."
app.command("gateway_trio.ctl.sessions_app:app", name="sessions", help=SESSIONS_HELP)
