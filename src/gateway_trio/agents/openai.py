"""The agent that asks a model, at any endpoint for OpenAI's chat completions, through the `openai` SDK.

The SDK makes the requests (`openai_http`). Its reader of streams is not used: it cannot say whether `[DONE]` came,
and makes of a page of HTML an empty answer and of malformed JSON a bare `JSONDecodeError`.
`core.chat_stream` reads instead. Its retries are not used either: they know nothing of a first token, of our
limits, and of a drain.

A try ends in one of four ways: the answer; `BackendUnavailable` (the network, 408, 409, 425, 429, 5xx, a limit,
all that is no whole stream), which is tried again as long as no token has come; `BackendRejected` (any other 4xx,
a content filter); or it is cancelled, and then the connection is closed.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Self

import httpx2
import openai
import trio

from gateway_trio.agent_tables import OpenAIAgentConfig
from gateway_trio.agents import (
    AgentUnusable,
    BackendRejected,
    BackendUnavailable,
    Emit,
    Stop,
    TextDelta,
    ThoughtDelta,
    Turn,
    Usage,
)
from gateway_trio.agents.openai_http import check_plain, check_type, make_client, named
from gateway_trio.core.chat_stream import Answer, EventStream, Part, messages
from gateway_trio.core.retries import next_try
from gateway_trio.log import get_logger

__all__ = ["OpenAIAgent"]

log = get_logger("openai")

_PROBE_SECONDS = 10.0
_REST_SECONDS = 0.1  #: for the end of the body behind [DONE]: read, the connection can be used again
_PIECE_BYTES = 4 * 1024  #: of what was read at once: what is taken apart without a checkpoint
_STREAM = openai.AsyncStream[Any]  #: what the SDK would make of a stream, if `cast_to` did not say otherwise


class OpenAIAgent:
    """Asks a model. One object, with one pool of connections, serves all sessions.

    Args:
        config: the endpoint and the limits.
        api_key: None to send none.

    """

    def __init__(self, config: OpenAIAgentConfig, api_key: str | None) -> None:
        self._config = config
        self._key = api_key
        # A redirection would send prompts where nobody said that they may go.
        self._options: Any = {"follow_redirects": False, "headers": {"Accept-Encoding": "identity"}}
        if not api_key:
            self._options["headers"]["Authorization"] = openai.Omit()
        self._client = make_client(config.base_url, api_key)
        # Whole, once: the SDK would put it together anew for each prompt.
        base = self._client.base_url
        self._url = str(base.copy_with(raw_path=base.raw_path + b"chat/completions"))

    @classmethod
    def from_config(cls, config: OpenAIAgentConfig, environ: Mapping[str, str]) -> Self:
        """Make the agent of `[agent]`. Raises `AgentUnusable` where its key is missing."""
        try:
            return cls(config, config.api_key(environ))
        except ValueError as error:
            raise AgentUnusable(f"agent.api_key_env: {error}") from None

    async def aclose(self) -> None:
        """Close the pool of connections. Cancelling closes them too."""
        await self._client.close()

    # --- what the gateway asks ---

    async def run(self, turn: Turn, emit: Emit) -> None:
        """Ask the model, and emit its answer as it comes. Cancelling closes the connection.

        A drain that has begun ends the waiting for another try.
        """
        config = self._config
        ends = trio.current_time() + config.first_token_seconds
        sent = messages(config.system_prompt, turn.history, turn.text, most=config.max_history_messages)
        failures = 0
        while (fault := await self._try(turn, sent, emit, ends)) is not None:
            failures += 1
            wait = next_try(
                failures,
                most=config.max_retries,
                asked=fault.retry_after_seconds,
                left=ends - trio.current_time(),
                chance=random.random(),  # noqa: S311 - it only spreads the tries
            )
            if wait is None or turn.draining.is_set():
                raise fault
            with trio.move_on_after(wait):
                await turn.draining.wait()
                raise fault

    async def probe(self) -> None:
        """Ask whether the endpoint answers, by `GET {base_url}/models`. A refusal is an answer.

        Raises `BackendUnavailable`. Cancelling closes the connection.
        """
        with contextlib.suppress(BackendRejected), named(), trio.fail_after(_PROBE_SECONDS):
            asking: Any = self._client.get(
                "/models", options=self._options, cast_to=httpx2.Response, stream=True, stream_cls=_STREAM
            )
            async with contextlib.aclosing(await asking) as response:
                check_type(response, "application/json")

    # --- one try ---

    async def _try(self, turn: Turn, sent: Any, emit: Emit, ends: float) -> BackendUnavailable | None:
        """Ask once. Return the fault that another try may mend; None for an answer."""
        answer = Answer(self._key)
        fault: BackendUnavailable | BackendRejected | None = None
        try:
            with named():
                await self._ask(sent, emit, ends, answer)
        except (BackendUnavailable, BackendRejected) as error:
            log.warning("model failed", turn=turn.id, fault=str(error), begun=answer.said)
            fault = error
        if fault is not None and answer.said:
            await self._say(answer.rest(), emit)
            raise fault
        if isinstance(fault, BackendRejected):
            raise fault
        return fault

    async def _ask(self, sent: Any, emit: Emit, ends: float, answer: Answer) -> None:
        body = {
            "model": self._config.model,
            "messages": sent,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        # Not `chat.completions.create`, which takes each message apart again: a quarter of the time to the first
        # token for one message, and more with each that there is.
        asking: Any = self._client.post(
            self._url,
            body=body,
            options=self._options,
            cast_to=httpx2.Response,
            stream=True,
            stream_cls=_STREAM,
        )
        async with contextlib.AsyncExitStack() as stack:
            with trio.fail_at(ends):
                response = await asking
            await stack.enter_async_context(contextlib.aclosing(response))
            check_type(response, "text/event-stream")
            check_plain(response)
            chunks: Any = response.aiter_raw()
            await stack.enter_async_context(contextlib.aclosing(chunks))
            await self._read(chunks, emit, ends, answer)
            with trio.move_on_after(_REST_SECONDS), contextlib.suppress(httpx2.HTTPError):
                async for _ in chunks:
                    await trio.lowlevel.checkpoint()

    async def _read(self, chunks: AsyncIterator[bytes], emit: Emit, ends: float, answer: Answer) -> None:
        events = EventStream()
        while not answer.done:
            with trio.fail_at(trio.current_time() + self._config.token_seconds if answer.said else ends):
                chunk = await anext(chunks, None)
            if chunk is None:
                await self._take(events.end(), emit, answer)
                break
            for start in range(0, len(chunk), _PIECE_BYTES):
                await self._take(events.feed(chunk[start : start + _PIECE_BYTES]), emit, answer)
        answer.end()
        await self._say(answer.rest(), emit)
        await self._conclude(answer, emit)

    async def _take(self, datas: Iterator[str], emit: Emit, answer: Answer) -> None:
        """Emit what these events say, up to [DONE]. Has a checkpoint, which what is read need not have."""
        emitted = False
        for data in datas if not answer.done else ():
            parts = answer.take(data)
            await self._say(parts, emit)
            emitted = emitted or bool(parts)
            if answer.done:
                break
        if not emitted:
            await trio.lowlevel.checkpoint()

    async def _say(self, parts: list[Part], emit: Emit) -> None:
        for part in parts:
            await emit(ThoughtDelta(part.text) if part.thought else TextDelta(part.text))

    async def _conclude(self, answer: Answer, emit: Emit) -> None:
        if answer.used is not None and self._config.context_tokens:
            await emit(Usage(answer.used, self._config.context_tokens))
        if answer.finish == "length":
            await emit(Stop("max_tokens"))
        elif answer.finish == "content_filter":
            raise BackendRejected("the provider's content filter cut the answer")
        elif answer.finish in ("tool_calls", "function_call"):
            raise BackendRejected("the model called a tool, and was given none")
