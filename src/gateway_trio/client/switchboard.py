"""Where everything meets that comes over a client's connection, and everybody who waits for it."""

from __future__ import annotations

import contextlib
import copy
import math
import random
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import trio

from gateway_trio.client.errors import ClientError, Lost, Refused
from gateway_trio.client.facts import Phase
from gateway_trio.client.keeper import Keeper, Plan
from gateway_trio.client.news import News
from gateway_trio.client.reading import Reading
from gateway_trio.client.session import How, Session
from gateway_trio.client.wire import Wire
from gateway_trio.core.jsonrpc import Notification, Request
from gateway_trio.core.retries import next_try

__all__ = ["Switchboard"]


class Switchboard:
    """The sessions and the phases of one client, and the keeper of its connection."""

    def __init__(self, plan: Plan) -> None:
        self.keeper = Keeper(plan, self)
        self.phases: News[Phase] = News()
        self.losses = 0  #: how often the connection was lost
        self._sessions: dict[str, Session] = {}
        self._readings: dict[str, Reading] = {}
        self._over: ClientError | None = None
        self._changed = trio.Event()

    async def connected(self) -> Wire:
        """Return the connection once there is one. Raises what it is over with."""
        await trio.lowlevel.checkpoint()
        while (wire := self.keeper.wire) is None:
            if self._over is not None:
                raise copy.copy(self._over)
            await self._changed.wait()
        return wire

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def up(self, wire: Wire) -> None:  # noqa: ARG002 - the keeper has it
        self._wake()

    async def welcome(self, wire: Wire) -> None:
        """Resume each session on a connection that came back; one that is refused for now is asked for again."""
        failures = 0
        while (asked := await self._resume(wire)) is not None:
            failures += 1
            chance = random.random()  # noqa: S311 - spreads load, guards nothing
            wait = next_try(failures, most=failures, asked=asked, left=math.inf, chance=chance)
            assert wait is not None  # noqa: S101 - there is no end to it but the connection's
            await trio.sleep(wait)

    async def _resume(self, wire: Wire) -> float | None:
        """Return None if nothing was refused for now, else for how many seconds the gateway wants no more."""
        asked: float | None = None
        for session in [session for session in self._sessions.values() if not session.on(wire)]:
            attached = partial(session.attached, wire, how="again")
            try:
                await wire.call("session/resume", session.resume_params(), attached)
            except Refused as refusal:
                if refusal.retryable:
                    asked = max(asked or 0.0, (refusal.retry_after_ms or 0) / 1000)
                else:  # it is not there any more, or not ours
                    self.forget(session)
                    session.end(refusal)
        return asked

    async def ready(self, message: Any) -> None:
        """Return once a message can be taken: one for a `Reading` that is full waits for that."""
        if isinstance(message, Notification) and (reading := self._reading(message)) is not None:
            await reading.ready()

    def _reading(self, message: Notification) -> Reading | None:
        if message.method != "session/update" or not isinstance(message.params, dict):
            return None
        return self._readings.get(str(message.params.get("sessionId")))

    def incoming(self, message: Request | Notification) -> None:
        params = message.params if isinstance(message.params, dict) else {}
        session = self._sessions.get(str(params.get("sessionId")))
        match message:
            case Notification() if (reading := self._reading(message)) is not None:
                update = params.get("update")
                reading.update(update if isinstance(update, dict) else {})
            case Notification("session/update") if session is not None:
                update = params.get("update")
                session.update(update if isinstance(update, dict) else {})
            case Request(id_, "session/request_permission") if session is not None:
                session.ask_permission(id_, params)
            case Notification("$/cancel_request"):
                self._withdrawn(params.get("requestId"))
            case Notification("_gateway-trio/phase"):
                self.phases.set(Phase.from_wire(params))
            case Notification("_gateway-trio/goodbye"):
                after = params.get("reconnectAfterMs")
                self.keeper.goodbye_ms = after if isinstance(after, int) else None
            case Request(id_, method) if self.keeper.wire is not None:
                self.keeper.wire.reject(id_, method)

    def _withdrawn(self, id_: Any) -> None:
        """The gateway does not wait for the answer to this request of its own any more."""
        known = isinstance(id_, str | int) and any(s.permission_over(id_) for s in self._sessions.values())
        if known and self.keeper.wire is not None:
            self.keeper.wire.answer(id_, {"outcome": {"outcome": "cancelled"}})

    def down(self, lost: Lost, wait_seconds: float) -> None:
        self.losses += 1
        for session in list(self._sessions.values()):
            session.down(lost, wait_seconds)

    def over(self, error: ClientError) -> None:
        self._over = error
        self.phases.end(error)
        for session in list(self._sessions.values()):
            session.end(error)
        self._wake()

    # --- for the client ---

    def add(self, id_: str, last: int = 0) -> Session:
        """Know a session from now on. Raises ValueError for one that is known."""
        self._is_new(id_)
        session = self._sessions[id_] = Session(self, id_, last)
        return session

    async def attach(self, session: Session, method: str, params: Mapping[str, Any], how: How) -> None:
        """Attach a session by this method; where that fails it is not known any more."""
        try:
            wire = await self.connected()
            await wire.call(method, params, partial(session.attached, wire, how=how))
        except BaseException:
            self.forget(session)
            raise

    def _is_new(self, id_: str) -> None:
        if id_ in self._sessions or id_ in self._readings:
            raise ValueError("this client has this session already")

    @contextlib.contextmanager
    def reading(self, id_: str) -> Iterator[Reading]:
        """Let a session be read in this block. Raises ValueError for one that is known."""
        self._is_new(id_)
        reading = self._readings[id_] = Reading(self, id_)
        try:
            yield reading
        finally:
            del self._readings[id_]
            reading.leave()

    def forget(self, session: Session) -> None:
        """Know nothing of a session any more; the gateway goes on as it does."""
        if self._sessions.get(session.id) is session:
            del self._sessions[session.id]
