"""The command line of `gateway-trio sessions`. What it needs is imported when one of its commands runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from gateway_trio.ctl.options import NOTHING_SAID, NOWHERE_SAID, Common, Where, run_verb

__all__ = ["app"]

app = App(name="sessions")


@app.command(name="list")
def list_(*, common: Common = NOTHING_SAID) -> int:
    """List the sessions that you may see, newest first."""
    from gateway_trio.ctl import sessions  # noqa: PLC0415 - only when it is used

    return run_verb(sessions.list_(sessions.local_names(common.url, common.config)), common)


@app.command
def show(session: str, /, *, where: Where = NOWHERE_SAID) -> int:
    """Show a session, by id or name, as a person reads it."""
    from gateway_trio.ctl import sessions  # noqa: PLC0415 - only when it is used

    return run_verb(sessions.show(session, sessions.local_names(where.url, where.config)), where)


@app.command
def export(
    session: str,
    /,
    *,
    output: Annotated[
        Path | None, Parameter(help="The file, which is there only when it is complete. Else stdout.")
    ] = None,
    where: Where = NOWHERE_SAID,
) -> int:
    """Write all events of a session, by id or name, as JSON, one a line."""
    from gateway_trio.ctl import sessions  # noqa: PLC0415 - only when it is used

    return run_verb(sessions.export(session, sessions.local_names(where.url, where.config), output), where)
