"""The running gateway: the parts, wired, and what a program that embeds it may do with it."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import trio

from gateway_trio.agents import Agent
from gateway_trio.breaker import Breaker
from gateway_trio.catch_up import CatchUp
from gateway_trio.config import Config, ConfigError, Fault
from gateway_trio.connection import Connection
from gateway_trio.control import Control
from gateway_trio.core.jsonrpc import CLOSES, Close
from gateway_trio.core.lifecycle import Action
from gateway_trio.core.phases import FINAL, Phase, Reason
from gateway_trio.desk import Desk
from gateway_trio.dialects.frame_cache import FrameCache
from gateway_trio.drain import Coordinator
from gateway_trio.entrance import Entrance
from gateway_trio.registry import Registry
from gateway_trio.reload import reload
from gateway_trio.report import DrainReport
from gateway_trio.runner import ExecRunner
from gateway_trio.sessions import Session
from gateway_trio.store import Store
from gateway_trio.tokens import Tokens
from gateway_trio.turns import Turns

__all__ = ["Gateway"]


async def _no_check() -> str | None:
    return None


async def _no_config() -> Config:
    raise ConfigError((Fault("config", "there is no file to read it from"),))


class Gateway:
    """What `nursery.start(serve, …)` returns.

    `listeners` is what it accepts from and `addresses` are their socket addresses, `closed` is set when the way
    down has come to its end, and `report` then says how it went; None before that. All methods are synchronous and
    for use inside the same Trio run.
    """

    def __init__(
        self,
        config: Config,
        agent: Agent,
        store: Store,
        check_restart: Callable[[], Awaitable[str | None]] | None = None,
        read_config: Callable[[], Awaitable[Config]] | None = None,
    ) -> None:
        self.config = config
        self.store = store
        self.listeners: Sequence[trio.abc.Listener[Any]] = ()
        self.addresses: list[Any] = []
        self.exposed: str | None = None  #: an address that we listen on and others can reach
        self.closed = trio.Event()
        self.report: DrainReport | None = None
        self.check_restart = check_restart or _no_check
        self.read_config = read_config or _no_config
        self.entrance = Entrance(config.auth, os.environ)
        self.connections: set[Connection] = set()
        self.counting: set[Connection] = set()  #: those that want to know of each turn and exec that comes or goes
        self.started = time.time()
        self.coordinator = Coordinator(config.drain)
        self.sessions = Registry(
            store,
            queue_limit=config.session.queue_limit,
            keep_bytes=config.session.keep_bytes,
            each=self.entrance.sessions_each,
        )
        self.frames = FrameCache()
        self.catch_up = CatchUp(self.sessions.commits)
        self.breaker = Breaker(config.breaker, self.coordinator, agent)
        self.turns = Turns(config, self.coordinator, store, agent, self.breaker)
        self.execs = ExecRunner(config, self.coordinator, store, self.sessions.saver)
        self.control = Control(self)
        self.desk = Desk(self)
        self._background: trio.Nursery
        self._in_background = False
        self._leaving: Close | None = None
        self.sessions.rests = self.rests
        self._wire()

    def _wire(self) -> None:
        on = self.coordinator.on
        on(Action.ANNOUNCE, self._announce)
        on(Action.START_QUEUED, self._start_queued)
        on(Action.SETTLE_QUEUED, self.turns.settle_queued)
        on(Action.CANCEL_TURNS, self.turns.cancel_all)
        on(Action.CANCEL_TURNS, self.breaker.stop)
        on(Action.END_EXECS, self.execs.end_all)
        self.coordinator.on_count(self._tell_counts)

    # --- for the program around it ---

    @property
    def phase(self) -> Phase:
        """Where the gateway stands."""
        return self.coordinator.phase

    def drain(
        self, reason: str = "operator", *, by: str = "library", why: str = "", grace_seconds: float | None = None
    ) -> None:
        """Let no new turn start.

        `reason` is `operator` or `backend`, which can be taken back and have no deadline, or `restart` or
        `shutdown`, after which `serve` returns. `grace_seconds` is what running turns get before they are
        cancelled; None takes the config's. Raises ValueError for another reason, and for seconds that are none.
        """
        if grace_seconds is not None and not grace_seconds >= 0:
            raise ValueError(f"grace_seconds is {grace_seconds}, and must be 0 or more")
        self.coordinator.drain(Reason(reason), by=by, why=why, grace_seconds=grace_seconds)

    def undrain(self, reason: str = "operator") -> bool:
        """Take a reason back; return whether that changed anything. A shutdown cannot be taken back.

        `backend` also makes an open breaker half-open: the next prompts tell whether the model answers.
        """
        before = self.coordinator.state
        if Reason(reason) is Reason.BACKEND:
            self.breaker.reset()
        self.coordinator.undrain(Reason(reason))
        return self.coordinator.state != before

    def status(self) -> Mapping[str, Any]:
        """Phase, reasons and who asked, what there is of turns, execs and the like, the breaker: as JSON types."""
        return {
            **self.coordinator.status(),
            "started": self.started,
            "breaker": self.breaker.status(),
            "connections": len(self.connections),
            "sessions": len(self.sessions),
            "abandoned": list(self.coordinator.timeline.abandoned),
        }

    def reload(self, config: Config) -> tuple[str, ...]:
        """Let another config hold: quick commands, tokens, limits. Connections whose token is gone are closed.

        Limits of what runs already stay as they are. Returns the keys of what only a restart can change and is
        another there. Raises `ConfigError` for tokens that cannot be used here; nothing has changed then.
        """
        return reload(self, config)

    # --- for the parts ---

    def use(self, config: Config, tokens: Tokens) -> None:
        """Give every part another config, in one step."""
        self.config = config
        self.entrance.change(config.auth, tokens)
        self.coordinator.config = config.drain
        self.turns.config = config
        self.breaker.use(config.breaker)
        self.execs.use(config)
        self.sessions.queue_limit = config.session.queue_limit
        self.sessions.keep_bytes = config.session.keep_bytes
        self.sessions.quota.each = self.entrance.sessions_each

    def begin(self, background: trio.Nursery) -> None:
        """The tree stands; `background` is for requests that outlive their connection."""
        self._background = background

    def background(self, function: Callable[[], Awaitable[None]]) -> bool:
        """Run what somebody asked for and that must not end with their socket; one at a time, else False.

        False also at the very end, when nothing is left to run it.
        """
        if self._in_background or self._background.cancel_scope.cancel_called:
            return False
        self._in_background = True

        async def run() -> None:
            try:
                await function()
            finally:
                self._in_background = False

        self._background.start_soon(run)
        return True

    def _announce(self) -> None:
        if self.coordinator.state.final:
            self.turns.warn_all()
        for connection in self.connections:
            connection.announce()

    def _tell_counts(self) -> None:
        for connection in self.counting:
            connection.announce(phase=False)

    def _start_queued(self) -> None:
        for session in self.sessions:
            self.turns.advance(session)

    def rests(self, session: Session) -> bool:
        """Whether nothing runs or waits in a session, and everything that did has its outcome in the log."""
        execs = any(exec_.ask.session is session for exec_ in self.execs.list())
        return self.turns.rests(session) and not execs

    def enter(self, connection: Connection) -> None:
        """A connection stands. One that came when the doors had closed, or its token was gone, leaves at once."""
        self.connections.add(connection)
        if connection.identity is not None and not self.entrance.tokens.holds(connection.identity):
            connection.close(CLOSES["revoked"])
        if self._leaving is not None:
            connection.close(self._leaving, pull_to_end=True)

    def close_sockets(self) -> None:
        """Let each connection send what is left, then say goodbye."""
        restart = self.coordinator.state.reasons & FINAL == {Reason.RESTART}
        self._leaving = CLOSES["restart" if restart else "shutdown"]
        for connection in self.connections:
            connection.close(self._leaving, pull_to_end=True)

    async def keep_alive(self, seconds: float) -> None:
        """Look after silent connections, all of them, again and again. Runs until cancelled."""
        while True:
            await trio.sleep(seconds)
            now = trio.current_time()
            for connection in list(self.connections):
                connection.keep_alive(now)
