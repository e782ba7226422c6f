"""HTTP for the agent `openai`: its SDK's client, and what a response or the network can say that is no answer.

A response that is no success is read here, not by the SDK, which reads all of it, however long, unpacks it, and
forgets the status where that fails. A status counts by itself: its body only adds what the provider says.
"""

from __future__ import annotations

import contextlib
import email.utils
import os
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus

import httpx2
import openai
import trio

from gateway_trio.agents import BackendRejected, BackendUnavailable
from gateway_trio.core.chat_stream import StreamFault
from gateway_trio.core.sentence import body_sentence

__all__ = ["check_plain", "check_type", "make_client", "named", "retry_after"]

_CONNECT_SECONDS = 10.0  #: for one try's connection; an address that answers nothing is not one that loads a model
#: Of a body that says why there is no answer. What is longer is not quoted.
_MOST_REFUSAL_BYTES = 64 * 1024
_REFUSAL_SECONDS = 5.0  #: for that body, if the request has twice as long left
#: Of 4xx, those that pass by themselves: timeout, conflict, too early, too many.
_PASSING = frozenset({408, 409, 425, 429})
_MOST_RETRY_AFTER = 86_400.0  #: seconds; a longer one is a date gone wrong


def make_client(base_url: str, api_key: str | None) -> openai.AsyncOpenAI:
    """Return the SDK's client; its requests raise what `refusal` makes of a response that is no success."""

    async def look(response: httpx2.Response) -> None:
        if not response.is_success:
            said = body_sentence(await _refusal_body(response), api_key)
            raise refusal(response.status_code, said, response.headers)

    timeout = openai.Timeout(None, connect=_CONNECT_SECONDS)
    return openai.AsyncOpenAI(
        # Not None, for which the SDK takes from the environment what may be another endpoint's key.
        api_key=api_key or "none",
        base_url=base_url,
        max_retries=0,
        timeout=timeout,
        http_client=openai.DefaultAsyncHttpxClient(timeout=timeout, event_hooks={"response": [look]}),
    )


async def _refusal_body(response: httpx2.Response) -> bytes:
    """Return what a response that is no success says; empty where that is not whole, long, or slow.

    Half of it may end in half of the key, which nobody would know. It is not unpacked either: nobody asked for it
    to be packed, and what it would become has no bound.
    """
    if _packed(response):
        return b""
    body, whole = bytearray(), False
    now = trio.current_time()
    # Well before the request's own deadline, behind which nobody would learn of the status.
    ends = min(now + _REFUSAL_SECONDS, (now + trio.current_effective_deadline()) / 2)
    with trio.move_on_at(ends), contextlib.suppress(httpx2.HTTPError, httpx2.StreamError):
        async with contextlib.aclosing(response.aiter_raw()) as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > _MOST_REFUSAL_BYTES:
                    break
                await trio.lowlevel.checkpoint()  # what was read at once may be thousands of chunks
            else:
                whole = True
    return bytes(body) if whole else b""


def _packed(response: httpx2.Response) -> bool:
    """Return whether the body has a coding, such as gzip (RFC 9110, 8.4)."""
    return response.headers.get("content-encoding", "").strip().lower() not in ("", "identity")


def refusal(status: int, said: str, headers: Mapping[str, str]) -> BackendRejected | BackendUnavailable:
    """Return what a status means that is no success; `said` is what the provider says of it, or empty."""
    why = f"{status}: {said}" if said else str(status)
    if status not in _PASSING and HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return BackendRejected(f"the model's provider refused ({why})")
    after = retry_after(headers, time.time())
    asks = "" if after is None else f"; it asks to wait {after:.0f} s"
    return BackendUnavailable(f"the model is not available ({why}){asks}", retry_after_seconds=after)


@contextlib.contextmanager
def named() -> Iterator[None]:
    """Name what the SDK and the network raise."""
    try:
        yield
    except StreamFault as fault:
        raise BackendUnavailable(f"the model {fault}") from None
    except trio.TooSlowError:
        raise BackendUnavailable("the model did not answer in time") from None
    except (openai.APITimeoutError, httpx2.TimeoutException):
        raise BackendUnavailable("the model's address does not answer") from None
    except openai.APIConnectionError as error:
        raise BackendUnavailable(f"the model cannot be reached{_cause(error)}") from None
    except (openai.APIError, httpx2.HTTPError, httpx2.StreamError):
        raise BackendUnavailable("the model's answer broke off") from None


def check_type(response: httpx2.Response, wanted: str) -> None:
    """Raise `StreamFault` for a response of another type."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != wanted:
        raise StreamFault(f"answered with {kind[:80] or 'something without a type'} in the place of {wanted}")


def check_plain(response: httpx2.Response) -> None:
    """Raise `StreamFault` for a response that is packed: a few bytes of it could become any number of events."""
    if _packed(response):
        raise StreamFault("compresses its answer, though it was asked not to")


def _cause(error: BaseException | None) -> str:
    """Return what the system said, such as `: connection refused`; it names no address and no header."""
    said = ""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:  # below 0 they are those of name look-ups
            said = os.strerror(error.errno) if error.errno > 0 else error.strerror or ""
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        else:
            error = error.__cause__ or error.__context__
    return f": {said.lower()}" if said else ""


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that a response asks us to wait (RFC 9110, 10.2.3), None if it does not say so.

    `now` is in seconds since the epoch, for a date.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), _MOST_RETRY_AFTER) if seconds == seconds else None  # noqa: PLR0124 - NaN
