"""A prompt as its sender sees it: updates until there is an outcome."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self

import trio
from attrs import frozen

from gateway_trio.client.errors import ClientError, Refused, refused
from gateway_trio.client.facts import ExecFacts
from gateway_trio.core.acp import OURS
from gateway_trio.core.feed import Feed
from gateway_trio.core.jsonrpc import Response
from gateway_trio.core.updates import Update

__all__ = ["Outcome", "Prompt", "Updates", "outcome"]


class Updates:
    """Iterates over updates as they come; one reader. Who does not read loses the oldest (`Skipped`), and holds
    up nothing: 1,000 updates or 4 Mi characters wait. Cancelling loses nothing.
    """

    def __init__(self) -> None:
        self._feed = Feed()
        self._news = trio.Event()
        self._ended = False
        self._error: ClientError | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        await trio.lowlevel.checkpoint()
        while (update := self._feed.take()) is None:
            if self._error is not None:
                raise copy.copy(self._error)
            if self._ended:
                raise StopAsyncIteration
            self._news = trio.Event()
            await self._news.wait()
        return update

    def drain(self) -> list[Update]:
        """Return what waits."""
        return list(iter(self._feed.take, None))

    def put(self, update: Update) -> None:
        if not self._ended:
            self._feed.put(update)
            self._news.set()

    def end(self, error: ClientError | None = None) -> None:
        """Let the iteration end behind what waits, or raise `error` there."""
        if not self._ended:
            self._ended, self._error = True, error
            self._news.set()


@frozen
class Outcome:
    """How a prompt that was accepted ended.

    `state` is `completed`, `cancelled`, `interrupted` or `failed`; `stop_reason` is ACP's, None for the last two.
    `error` has the message and the reason of those; `facts` are those of a quick command, else None.
    """

    state: str
    stop_reason: str | None = None
    error: Refused | None = None
    facts: ExecFacts | None = None


def outcome(answer: Response) -> Outcome | Refused:
    """Return what the answer to a `session/prompt` says: an outcome, or that it was not accepted."""
    if answer.error is not None:
        fault = refused(answer.error)
        if fault.admitted is not True:
            return fault
        return Outcome("interrupted" if fault.reason == "interrupted" else "failed", error=fault)
    result = answer.result if isinstance(answer.result, dict) else {}
    stop_reason = str(result.get("stopReason", ""))
    meta = result.get("_meta")
    facts = meta.get(OURS) if isinstance(meta, dict) else None
    return Outcome(
        "cancelled" if stop_reason == "cancelled" else "completed",
        stop_reason,
        facts=ExecFacts.from_wire(facts) if isinstance(facts, dict) and facts else None,
    )


class Prompt(Updates):
    """What `Session.prompt` gives: iterates over the updates of its turn or exec, and ends with its outcome.

    `outcome` is None until then. What comes in before somebody reads waits, as in any `Updates`; to leave the
    loop, or to be cancelled in it, cancels nothing at the gateway. Raises `Refused` where it was not accepted,
    and `Lost` where it cannot be learnt any more what became of it.
    """

    def __init__(self, text: str, key: str, on_busy: str | None, cancel: Callable[[Prompt], None]) -> None:
        super().__init__()
        self.text = text
        self.key = key
        self.on_busy = on_busy
        self.outcome: Outcome | None = None
        self.work_id: str | None = None  #: of its turn or exec, once that is known
        self.request_id: int | None = None  #: of the request that waits for its outcome
        self.sent = False  #: it may have reached the gateway
        self.cancelled = False  #: its sender wants it cancelled
        self._cancel = cancel

    async def result(self) -> Outcome:
        """Pass over what is left and return the outcome. Raises as the iteration does."""
        async for _ in self:
            pass
        assert self.outcome is not None  # noqa: S101 - the iteration has ended without an error
        return self.outcome

    def cancel(self) -> None:
        """Cancel exactly this prompt, waiting or running; how it ended says the outcome, as ever."""
        self._cancel(self)

    def params(self, session_id: str) -> dict[str, Any]:
        """Return the parameters of its request."""
        meta = {"key": self.key} | ({} if self.on_busy is None else {"onBusy": self.on_busy})
        text = {"type": "text", "text": self.text}
        return {"sessionId": session_id, "prompt": [text], "_meta": {OURS: meta}}

    def finish(self, result: Outcome) -> None:
        """It has ended so."""
        self.outcome = result
        self.end()
