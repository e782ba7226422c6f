"""`--wait`: looks on, as the gateway tells of each change, until the drain or the restart is over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway_trio.client import Client, Closed, Lost, Phase, Refused
from gateway_trio.core.waits import Outcome, Seen
from gateway_trio.ctl.screen import Progress

__all__ = ["wait_until"]


async def wait_until(
    over: Callable[[Seen], Outcome | None], client: Client, started: object, losses: int, shown: Progress
) -> Outcome:
    """Return how it ended.

    Args:
        over: says of what is seen whether that is the end.
        client: one that is told of counts too, and comes back.
        started: what the status of the process that was asked says of its start.
        losses: the client's, when it was asked.
        shown: is told what is seen.

    Raises what the connection is over with. Cancelling changes nothing at the gateway.

    """
    same = True
    async for phase in client.phases():
        if client.losses != losses:
            # Another connection, so perhaps another process. What is looked at below may be older than this, and
            # then the phase that comes with the connection is the next.
            newest = client.losses
            try:
                same = (await client.status()).get("started") == started
            except Closed:
                raise
            except (Lost, Refused):
                continue  # it goes already; the next connection tells
            losses = newest
        seen = _seen(phase, same=same)
        shown.show(seen)
        if (outcome := over(seen)) is not None:
            return outcome
    raise AssertionError("phases do not end without an error")


def _seen(phase: Phase, *, same: bool) -> Seen:
    facts: dict[str, Any] = {"phase": phase.name, "reasons": phase.reasons, "turns": phase.turns}
    return Seen(**facts, execs=phase.execs, left=phase.remaining_seconds, same=same)
