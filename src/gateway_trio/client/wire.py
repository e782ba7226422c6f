"""JSON-RPC over one link: requests that wait for their answers, and everything else that comes.

One task reads and hands on each message at once, so that nothing that a user of the library does keeps pings from
being answered; one writes what was posted, whole frames only; one looks whether the gateway is still there.
"""

from __future__ import annotations

import contextlib
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from gateway_trio.client.errors import ClientError, Lost, Unreachable, Unread, refused
from gateway_trio.client.link import Link
from gateway_trio.core.client_frame import MOST_BYTES, client_frame
from gateway_trio.core.jsonrpc import Notification, Problem, Request, RequestId, Response, parse, problem
from gateway_trio.core.jsonrpc import error as error_frame
from gateway_trio.core.jsonrpc import notification as notification_frame
from gateway_trio.core.jsonrpc import request as request_frame
from gateway_trio.core.jsonrpc import result as result_frame

__all__ = ["POSTED_FRAMES", "Answer", "Wire"]

#: Frames that wait to be sent; beyond it a call is refused as `busy`.
POSTED_FRAMES = 1024
#: So often it is looked whether the gateway is still there, and so long it may take to say so.
PING_SECONDS = 30.0
PONG_SECONDS = 20.0

_NO_ACP = "what answers at this path does not speak ACP over JSON-RPC; a gateway does so at /acp"

Answer = Response | ClientError
_Incoming = Callable[[Request | Notification], None]


class Wire:
    """One connection's requests and answers. `incoming` is called, synchronously, with all that is no answer.

    `ready` is waited for before a message is taken: nothing more is read meanwhile. `most_bytes` is how long a
    frame may be that the gateway takes.
    """

    def __init__(self, link: Link, incoming: _Incoming, ready: Callable[[Any], Awaitable[None]]) -> None:
        self.most_bytes = MOST_BYTES
        self._link = link
        self._incoming = incoming
        self._ready = ready
        self._held = False
        self._posted: deque[str] = deque()
        self._news = trio.Event()
        self._sent = trio.Event()
        self._waiting: dict[RequestId, Callable[[Answer], None]] = {}
        self._ids = 0
        self._answered = False  #: it has answered something, so it is a gateway that speaks ACP
        self._ended: ClientError | None = None

    # --- to the gateway ---

    def ask(self, method: str, params: Mapping[str, Any], answered: Callable[[Answer], None]) -> int:
        """Post a request and return its id; `answered` is called once, with the answer or why none comes.

        Raises `Refused` as `busy` where too much waits to be sent, as `invalid_params` for what the gateway would
        not take, and what the connection ended with.
        """
        self._ids += 1
        self._post(request_frame(self._ids, method, params))
        self._waiting[self._ids] = answered
        return self._ids

    async def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        take: Callable[[dict[str, Any]], object] | None = None,
        stop: trio.Event | None = None,
    ) -> dict[str, Any]:
        """Ask and wait for the result. Raises `Refused` and `Lost`. When it is cancelled the answer is dropped;
        what was asked for may be done all the same.

        `take` is called with the result when it is read, before anything that comes after it; None for nothing.
        Once `stop` is set the gateway is told to end it, and the answer is waited for as before; None for never.
        """
        came = trio.Event()
        answers: list[Answer] = []

        def answered(answer: Answer) -> None:
            answers.append(answer)
            came.set()
            if take is not None and isinstance(answer, Response) and answer.error is None:
                take(_result(answer))

        id_ = self.ask(method, params or {}, answered)
        try:
            async with trio.open_nursery() as nursery:
                if stop is not None:
                    nursery.start_soon(self._stop, id_, stop)
                await came.wait()
                nursery.cancel_scope.cancel()
        finally:
            self._waiting.pop(id_, None)
        answer = answers[0]
        if isinstance(answer, ClientError):
            raise copy.copy(answer)
        if answer.error is not None:
            raise refused(answer.error)
        return _result(answer)

    async def _stop(self, id_: int, stop: trio.Event) -> None:
        await stop.wait()
        with contextlib.suppress(ClientError):  # there is no connection any more: the call says so
            self.notify("$/cancel_request", {"requestId": id_})

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Post a notification. Raises as `ask` does."""
        self._post(notification_frame(method, params))

    def answer(self, id_: RequestId, value: Mapping[str, Any]) -> None:
        """Post the answer to a request of the gateway's. Raises as `ask` does."""
        self._post(result_frame(id_, value))

    def reject(self, id_: RequestId, method: str) -> None:
        """Say that there is no such method here. Where that cannot be posted it is left out."""
        if self._ended is None and len(self._posted) < POSTED_FRAMES:
            self._post(error_frame(id_, problem("method_not_found", f"there is no method {method[:100]!r}")))

    def _post(self, message: Mapping[str, Any]) -> None:
        if self._ended is not None:
            raise copy.copy(self._ended)
        frame = client_frame(message, self.most_bytes)
        if len(self._posted) >= POSTED_FRAMES:
            frame = problem("busy", "too much waits to be sent on this connection", admitted=False)
        if isinstance(frame, Problem):
            raise refused(frame.to_wire())
        self._posted.append(frame)
        if self._sent.is_set():
            self._sent = trio.Event()
        self._news.set()

    async def write(self) -> None:
        """Send what is posted, until it is cancelled or the link ends; how it ended says the reader."""
        with contextlib.suppress(Lost):
            while True:
                while self._posted:
                    await self._link.send(self._posted[0])
                    self._posted.popleft()
                self._sent.set()
                self._news = trio.Event()
                await self._news.wait()

    async def flush(self) -> None:
        """Return once everything that is posted now has been sent, or cannot be."""
        while self._posted and self._ended is None:
            await self._sent.wait()

    # --- from the gateway ---

    async def read(self) -> Lost:
        """Hand on what comes, until the link ends; return how it ended. Raises `Unreachable` where the other side
        does not speak ACP.
        """
        try:
            while True:
                message = parse(await self._link.receive())
                self._held = True
                await self._ready(message)
                self._held = False
                self._take(message)
        except Lost as lost:
            return lost

    def _take(self, message: Any) -> None:
        match message:
            case Response(None, error=error):  # a frame of ours was broken on its way; which one, nobody can say
                raise Unread(f"the gateway could not read what it was sent: {refused(error)}")
            case Response(id_):
                if (answered := self._waiting.pop(id_, None)) is not None:
                    self._answered = True
                    answered(message)
            case _ if not self._answered:  # an agent answers `initialize` first; what echoes is not one
                raise Unreachable(_NO_ACP, retryable=False)
            case Request() | Notification():
                self._incoming(message)
            case _:
                pass  # no message at all: there is nobody to tell

    def end(self, why: ClientError) -> None:
        """Answer everything that waits with `why`, and whatever is still to be asked."""
        if self._ended is not None:
            return
        self._ended = why
        waiting, self._waiting = self._waiting, {}
        for answered in waiting.values():
            answered(why)
        self._sent.set()

    async def keep_alive(self) -> None:
        """Ping the gateway from time to time. Raises `Lost` when it does not answer for `PONG_SECONDS`."""
        while True:
            await trio.sleep(PING_SECONDS)
            with trio.move_on_after(PONG_SECONDS) as patience, contextlib.suppress(Lost):
                await self._link.ping()
            if patience.cancelled_caught and not self._held:  # the answer may stand behind what is not read yet
                raise Lost("the gateway does not answer")


def _result(answer: Response) -> dict[str, Any]:
    return answer.result if isinstance(answer.result, dict) else {}
