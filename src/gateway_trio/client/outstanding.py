"""The prompts of one session whose outcome is not known yet.

When the connection comes back each is sent again with its key: the gateway lets it join the turn or exec that
there is, and nothing runs twice. A command is the exception, unless its exec or turn is known: what the gateway
does itself (`/restart`) has no key there, so such a prompt ends as `Lost`.
"""

from __future__ import annotations

import secrets
from functools import partial

from gateway_trio.client.errors import ClientError, Lost, Refused, Unread, refused
from gateway_trio.client.prompts import Outcome, Prompt, outcome
from gateway_trio.client.wire import Answer, Wire
from gateway_trio.core.jsonrpc import problem
from gateway_trio.core.updates import Notice, Update
from gateway_trio.core.words import split_command

__all__ = ["MOST_PROMPTS", "Outstanding"]

#: Beyond it a prompt is refused as `busy`. The gateway queues fewer by default.
MOST_PROMPTS = 256

#: Accepted, and queued over a restart: the outcome comes when the gateway is back and the prompt is sent again.
_HELD = frozenset({"draining", "held"})


class Outstanding:
    """Sends prompts, tells them what is theirs, and ends them."""

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id
        self._wire: Wire | None = None
        self._over: ClientError | None = None
        self._by_key: dict[str, Prompt] = {}
        self._by_work: dict[str, Prompt] = {}
        self._notices: list[Notice] = []

    def add(self, text: str, key: str | None, on_busy: str | None) -> Prompt:
        """Return a new prompt, which is under way, or waits for a connection, or has ended with an error."""
        prompt = Prompt(text, key or secrets.token_hex(16), on_busy, self._cancel)
        if self._over is not None:
            prompt.end(self._over)
        elif prompt.key in self._by_key:
            prompt.end(_refusal("conflict", "this key is in use"))
        elif len(self._by_key) >= MOST_PROMPTS:
            prompt.end(_refusal("busy", "too many prompts of this session wait"))
        else:
            self._by_key[prompt.key] = prompt
            self._send(prompt)
        return prompt

    # --- the connection ---

    def attach(self, wire: Wire) -> None:
        """Send what waits, again or for the first time."""
        self._wire = wire
        for prompt in list(self._by_key.values()):
            self._send(prompt)

    def detach(self) -> None:
        """There is no connection for now."""
        self._wire = None

    def forgotten(self) -> None:
        """The gateway has another log, which knows no key of ours: what it may have had cannot be sent again."""
        for prompt in [prompt for prompt in self._by_key.values() if prompt.sent]:
            self._drop(prompt, Lost("the gateway has lost this session's log, and with it the prompt's outcome"))

    def end(self, error: ClientError) -> None:
        """End them all, and whatever is added later."""
        self._over, self._wire = error, None
        for prompt in list(self._by_key.values()):
            self._drop(prompt, error)

    # --- what comes ---

    def bind(self, key: str, work_id: str) -> Prompt | None:
        """Let a prompt be this turn or exec; return it where that is news."""
        prompt = self._by_key.get(key)
        if prompt is None or prompt.work_id is not None:
            return None
        prompt.work_id = work_id
        self._by_work[work_id] = prompt
        return prompt

    def tell(self, work_id: str, update: Update) -> None:
        """Tell the prompt of this turn or exec, if it is one of these."""
        if (prompt := self._by_work.get(work_id)) is not None:
            prompt.put(update)

    def tell_all(self, update: Update) -> None:
        for prompt in self._by_key.values():
            prompt.put(update)

    def notice(self, notice: Notice) -> None:
        """Take the gateway's own words: they belong to the answer that follows them directly."""
        self._notices.append(notice)

    # --- inside ---

    def _send(self, prompt: Prompt) -> None:
        if self._wire is None:
            return
        if prompt.sent and prompt.work_id is None and split_command(prompt.text) is not None:
            self._drop(prompt, Lost("the connection was lost; the command may have run, and is not sent again"))
            return
        try:
            answered = partial(self._answered, prompt)
            prompt.request_id = self._wire.ask("session/prompt", prompt.params(self._session_id), answered)
        except Refused as refusal:
            self._drop(prompt, refusal)
            return
        prompt.sent = True
        if prompt.cancelled:
            self._cancel(prompt)

    def _answered(self, prompt: Prompt, answer: Answer) -> None:
        notices, self._notices = self._notices, []
        prompt.request_id = None
        if isinstance(answer, ClientError):
            accepted = prompt.work_id is not None
            if type(answer) is not Lost and not (isinstance(answer, Unread) and accepted):
                self._drop(prompt, answer)  # else it is no end: it is sent again
            return
        result = outcome(answer)
        if isinstance(result, Refused):
            self._drop(prompt, result)
        elif result.error is None or result.error.reason not in _HELD:
            for notice in notices:
                prompt.put(notice)
            self._drop(prompt, result)

    def _drop(self, prompt: Prompt, result: Outcome | ClientError) -> None:
        self._by_key.pop(prompt.key, None)
        if prompt.work_id is not None:
            self._by_work.pop(prompt.work_id, None)
        if isinstance(result, ClientError):
            prompt.end(result)
        else:
            prompt.finish(result)

    def _cancel(self, prompt: Prompt) -> None:
        if self._by_key.get(prompt.key) is not prompt:
            return
        prompt.cancelled = True
        if self._wire is not None and prompt.request_id is not None:
            self._wire.notify("$/cancel_request", {"requestId": prompt.request_id})


def _refusal(reason: str, message: str) -> Refused:
    return refused(problem(reason, message, admitted=False).to_wire())
