"""The options that the programs which ask a gateway have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from attrs import field, frozen
from cyclopts import Parameter
from cyclopts.validators import Number

__all__ = ["NOTHING_SAID", "NOWHERE_SAID", "Common", "Where", "run_verb"]


@Parameter(name="*")
@frozen
class Where:
    """Which gateway, and how long it may take."""

    url: Annotated[
        str | None,
        Parameter(help="Of the gateway, ws:// or wss://. Else: --config, GATEWAY_TRIO_URL, ws://127.0.0.1:8765."),
    ] = None
    config: Annotated[Path | None, Parameter(help="The gateway's config: its host and port are taken.")] = None
    timeout: Annotated[
        float | None,
        Parameter(
            help="Seconds for all of it. 30 if it is not said, no end for `exec`, `show`, `export` and --wait.",
            validator=Number(gt=0),
        ),
    ] = None


@Parameter(name="*")
@frozen
class Common(Where):
    """The same, and in which form the result is written."""

    as_json: Annotated[
        bool, Parameter(name="--json", negative=(), help="Write one JSON object to stdout, also for an error.")
    ] = field(default=False)


NOWHERE_SAID = Where()
NOTHING_SAID = Common()


def run_verb(verb: object, where: Where) -> int:
    """Ask what a `ctl.run.Verb` asks; return the exit code."""
    from gateway_trio.ctl.run import Verb, run  # noqa: PLC0415 - only when it is used

    assert isinstance(verb, Verb)  # noqa: S101 - all of `verbs` are
    as_json = isinstance(where, Common) and where.as_json
    return run(verb, url=where.url, config=where.config, timeout=where.timeout, as_json=as_json)
