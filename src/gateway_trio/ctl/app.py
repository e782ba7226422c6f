"""The command line of `ctl`. What it needs is imported when one of its commands runs."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from gateway_trio.ctl.options import NOTHING_SAID as _NOTHING_SAID
from gateway_trio.ctl.options import Common as _Common
from gateway_trio.ctl.options import run_verb as _run

__all__ = ["app"]

app = App(
    name="ctl",
)


_Wait = Annotated[bool, Parameter(negative=(), help="Show how far it is, on stderr, until it is over.")]


@app.command
def status(*, common: _Common = _NOTHING_SAID) -> int:
    """Show phase, reasons, what runs, the breaker, connections and sessions."""
    from gateway_trio.ctl import verbs  # noqa: PLC0415 - only when it is used

    return _run(verbs.status(), common)


@app.command
def drain(why: str = "", /, *, wait: _Wait = False, common: _Common = _NOTHING_SAID) -> int:
    """Let no turn start until `undrain`. With --wait: until none runs any more."""
    from gateway_trio.ctl import verbs  # noqa: PLC0415 - only when it is used

    return _run(verbs.drain(why, wait=wait), common)


@app.command
def undrain(reason: str = "operator", /, *, common: _Common = _NOTHING_SAID) -> int:
    """Take a reason for the drain back: `backend`, or `operator` and with it a restart that is not far yet."""
    from gateway_trio.ctl import verbs  # noqa: PLC0415 - only when it is used

    return _run(verbs.undrain(reason), common)


@app.command
def restart(*, wait: _Wait = False, common: _Common = _NOTHING_SAID) -> int:
    """Check the config, drain, and restart. With --wait: until the gateway is back and open."""
    from gateway_trio.ctl import verbs  # noqa: PLC0415 - only when it is used

    return _run(verbs.restart(wait=wait), common)


@app.command(name="exec")
def exec_(
    name: str,
    /,
    *args: Annotated[str, Parameter(allow_leading_hyphen=True)],
    common: _Common = _NOTHING_SAID,
) -> int:
    """Run a quick command. Its output goes to stdout, and its exit code is handed on."""
    from gateway_trio.ctl import verbs  # noqa: PLC0415 - only when it is used

    return _run(verbs.exec_(name, args), common)


@app.command
def kill(id: str, /, *, common: _Common = _NOTHING_SAID) -> int:  # noqa: A002 - as it stands in the help
    """End a running quick command. `status` lists those that you may end."""
    from gateway_trio.ctl import verbs  # noqa: PLC0415 - only when it is used

    return _run(verbs.kill(id), common)
