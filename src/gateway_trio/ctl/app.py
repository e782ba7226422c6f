"""The command line of `ctl`. What it needs is imported when one of its commands runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from attrs import field, frozen
from cyclopts import App, Parameter
from cyclopts.validators import Number

__all__ = ["app"]

app = App(
    name="ctl",
)


@Parameter(name="*")
@frozen
class _Common:
    url: Annotated[
        str | None,
        Parameter(help="Of the gateway, ws:// or wss://. Else: --config, GATEWAY_TRIO_URL, ws://127.0.0.1:8765."),
    ] = None
    config: Annotated[Path | None, Parameter(help="The gateway's config: its host and port are taken.")] = None
    timeout: Annotated[
        float | None,
        Parameter(
            help="Seconds for all of it. 30 if it is not said, no end for `exec` and for --wait.",
            validator=Number(gt=0),
        ),
    ] = None
    as_json: Annotated[
        bool, Parameter(name="--json", negative=(), help="Write one JSON object to stdout, also for an error.")
    ] = field(default=False)


_NOTHING_SAID = _Common()
_Wait = Annotated[bool, Parameter(negative=(), help="Show how far it is, on stderr, until it is over.")]


def _run(verb: object, common: _Common) -> int:
    from gateway_trio.ctl.run import Verb, run  # noqa: PLC0415 - only when it is used

    assert isinstance(verb, Verb)  # noqa: S101 - all of `verbs` are
    return run(verb, url=common.url, config=common.config, timeout=common.timeout, as_json=common.as_json)


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
