"""A person at a terminal and a session."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

import trio

from gateway_trio.chat.terminal import Interrupt, Line, Terminal
from gateway_trio.client import (
    Away,
    Back,
    Client,
    ClientError,
    Command,
    Gap,
    Lost,
    Permission,
    PermissionOver,
    Phase,
    Prompt,
    Refused,
    Session,
    State,
    Text,
    Update,
)
from gateway_trio.core.jsonrpc import CLOSES
from gateway_trio.core.printable import printable
from gateway_trio.core.transcript import Transcript, notice

__all__ = ["Talk"]

#: A second Ctrl-C within so many seconds leaves, whatever runs.
_AGAIN_SECONDS = 2.0


class Talk:
    """One run of the chat at a terminal.

    Args:
        client: the connection.
        session: where it begins.
        renew: makes a session to go on in where the gateway has not kept this one.

    """

    def __init__(self, client: Client, session: Session, renew: Callable[[], Awaitable[Session]]) -> None:
        self._client = client
        self._session = session
        self._renew = renew
        self._terminal: Terminal
        self._nursery: trio.Nursery
        self._transcript = Transcript()
        self._writing = trio.Lock()  # lines of two tasks come one after the other
        self._running: set[Prompt] = set()
        self._turns: set[str] = set()  #: that run in the session, anybody's, as far as that was seen
        self._again: list[str] = []  #: what was typed for a session that was not there any more
        self._interrupted_at = -math.inf
        self._told_down = False

    def commands(self) -> Sequence[Command]:
        """Return those that may be completed."""
        known = self._session.commands
        return () if known is None else known.commands

    async def run(self, terminal: Terminal) -> None:
        """Talk until the person leaves. Raises what the connection is over with."""
        self._terminal = terminal
        over: ClientError | None = None
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(terminal.run)
            await self._show([notice("connected; /help lists the commands, Ctrl-D leaves")])
            nursery.start_soon(self._phases)
            nursery.start_soon(self._take)
            try:
                await self._updates()
            except ClientError as error:
                over = error
            nursery.cancel_scope.cancel()
        if over is not None:
            raise over

    # --- what the person does ---

    async def _take(self) -> None:
        async for event in self._terminal.events:
            match event:
                case Line(text):
                    if not await self._answered_permission(text):
                        self._ask(text)
                case Interrupt() if not await self._interrupt():
                    break
        self._nursery.cancel_scope.cancel()

    def _ask(self, text: str) -> None:
        self._transcript.own.append(text)
        prompt = self._session.prompt(text)
        self._running.add(prompt)
        self._nursery.start_soon(self._wait, prompt)

    async def _wait(self, prompt: Prompt) -> None:
        """Tell why a prompt came to nothing; what it says is shown with all the session's updates."""
        try:
            await prompt.result()
        except (Refused, Lost) as error:
            if isinstance(error, Refused) and error.reason == "unknown_session" and not prompt.sent:
                self._again.append(prompt.text)
            else:
                await self._show([notice(str(error))])
        finally:
            self._running.discard(prompt)
            if prompt.text in self._transcript.own:
                self._transcript.own.remove(prompt.text)

    async def _interrupt(self) -> bool:
        """Stop what runs; return False where there is nothing to stop, or that was asked for a moment ago."""
        now = trio.current_time()
        again, self._interrupted_at = now - self._interrupted_at < _AGAIN_SECONDS, now
        if again or not (self._running or self._turns):
            return False
        if self._turns:
            self._session.cancel()
        else:  # what was sent just now, and quick commands
            for prompt in self._running:
                prompt.cancel()
        await self._show([notice("stopping; once more leaves")])
        return True

    async def _answered_permission(self, text: str) -> bool:
        """Answer the oldest open question with `/allow` or `/deny`; without one these are for the gateway."""
        word = text.strip().lower()
        if word not in ("/allow", "/deny") or not (asked := self._session.permissions()):
            return False
        kind = "allow" if word == "/allow" else "reject"
        for option in asked[0].options:
            if option.kind.startswith(kind):
                self._session.permit(asked[0], option.id)
                await self._show([notice(f"answered: {option.name}")])
                return True
        await self._show([notice(f"this has no such answer; it may be {printable(repr(asked[0].options))}")])
        return True

    # --- what the gateway says ---

    async def _updates(self) -> None:
        while True:
            try:
                async for update in self._session.updates():
                    await self._shown(update)
            except Refused as refusal:
                if refusal.reason != "unknown_session":
                    raise
            await self._show(self._transcript.flush())
            self._session = await self._renew()
            self._turns.clear()
            self._told_down = False
            await self._show([notice("back, in a new session: the gateway has not kept the old one")])
            again, self._again = self._again, []
            for text in again:
                self._ask(text)

    async def _shown(self, update: Update) -> None:
        match update:
            case State(work="turn", id=id_) if update.ends:
                self._turns.discard(id_)
            case State(work="turn", id=id_, state="running") | Text(kind="answer", owner=id_):
                self._turns.add(id_)
            case Gap():
                self._turns.clear()
        match update:
            case Away(code=code):
                if not self._told_down:
                    restarts = code == CLOSES["restart"].code
                    await self._show([notice("restarting …" if restarts else "connection lost, coming back …")])
                self._told_down = True
            case Back():
                self._told_down = False
                await self._show([notice("back")])
            case PermissionOver():
                pass
            case Permission():
                await self._show(["\a" + line for line in self._transcript.take(update)])
            case _:
                await self._show(self._transcript.take(update))

    async def _phases(self) -> None:
        was: Phase | None = None
        try:
            async for phase in self._client.phases():
                if phase.name == "draining" and (
                    was is None or was.name != "draining" or was.reasons != phase.reasons
                ):
                    await self._show([notice(self._draining(phase))])
                elif phase.name == "open" and was is not None and was.name == "draining":
                    await self._show([notice("open again")])
                was = phase
        except ClientError:
            return  # the session's updates end with the same

    def _draining(self, phase: Phase) -> str:
        for final, words in (("shutdown", "the gateway shuts down …"), ("restart", "restarting …")):
            if final in phase.reasons:
                self._told_down = True
                return words
        return f"draining ({', '.join(phase.reasons)}): no new prompts, commands still run"

    async def _show(self, lines: Sequence[str]) -> None:
        async with self._writing:
            await self._terminal.show(lines, self._transcript.growing())
