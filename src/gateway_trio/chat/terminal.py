"""The terminal: a line that is edited at the bottom, and above it what there is to read.

prompt_toolkit runs on asyncio, so it has a loop and a thread of its own. What a user does there comes to Trio
through a channel; what is shown is handed to the loop, and whoever shows waits until it is written, so that no
more waits than what the terminal is just writing.

The terminal stays raw from the first line to the last, also while something is written and between two lines: a
key that is pressed then, Ctrl-C above all, is a key like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import trio
from attrs import frozen
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.utils import get_cwidth

from gateway_trio.core.updates import Command

__all__ = ["Interrupt", "Line", "Terminal"]

#: Lines that were typed and not taken yet; beyond it they are dropped, and that is told.
_LINES = 100


@frozen
class Line:
    """A line was typed."""

    text: str


@frozen
class Interrupt:
    """Ctrl-C was pressed, with nothing in the line."""


Event = Line | Interrupt


class Terminal:
    """Edits lines and shows text above them, while `run` runs.

    Args:
        history: the file with what was typed before; None for none.
        commands: returns what may be completed.

    """

    def __init__(self, history: Path | None, commands: Callable[[], Sequence[Command]]) -> None:
        self._history: History = InMemoryHistory() if history is None else FileHistory(str(history))
        self._completer = _Commands(commands)
        self._tail = ""
        self._send, self.events = trio.open_memory_channel[Event](_LINES)
        self._loop: asyncio.AbstractEventLoop
        self._editing: asyncio.Task[None]
        self._session: PromptSession[str]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Edit lines until Ctrl-D, or until this is cancelled; then `events` ends, the terminal as before."""
        started = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_when_cancelled, started)
            with trio.CancelScope(shield=True), self._send:  # the thread ends when the line above stops it
                ready = _Ready(trio.lowlevel.current_trio_token(), started, task_status)
                await trio.to_thread.run_sync(lambda: asyncio.run(self._edit(ready)))
            nursery.cancel_scope.cancel()

    async def _stop_when_cancelled(self, started: trio.Event) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(5, shield=True):  # the loop is up in a moment
                await started.wait()
            if started.is_set():
                with contextlib.suppress(RuntimeError):  # it has ended by itself
                    self._loop.call_soon_threadsafe(self._editing.cancel)

    async def show(self, lines: Iterable[str], growing: str) -> None:
        """Write lines above the edited one, and let `growing` stand between them; return when that is done."""
        written = trio.Event()
        token = trio.lowlevel.current_trio_token()
        text = "".join(f"{line}\n" for line in lines)

        def write() -> None:
            self._write(text, growing)
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(written.set)

        try:
            self._loop.call_soon_threadsafe(write)
        except RuntimeError:  # it has ended: so has what it would be shown on
            await trio.lowlevel.checkpoint()
            return
        await written.wait()

    # --- in the loop's thread ---

    async def _edit(self, ready: _Ready) -> None:
        self._session = PromptSession(
            self._prompt,
            history=self._history,
            completer=self._completer,
            complete_while_typing=False,
            key_bindings=self._keys(),
            reserve_space_for_menu=4,
        )
        self._loop = asyncio.get_running_loop()
        editing: Any = asyncio.current_task()
        self._editing = editing
        ready.tell()
        with contextlib.suppress(EOFError, asyncio.CancelledError), self._session.input.raw_mode():
            while True:
                text = await self._session.prompt_async(handle_sigint=False)
                if text.strip():
                    self._post(Line(text))

    def _write(self, text: str, growing: str) -> None:
        app = self._session.app
        self._tail = growing
        if text and app.is_running:
            app.renderer.erase()
            _write(text)
            app.renderer.reset()
            app.renderer.request_absolute_cursor_position()
        elif text:
            _write(text)
        app.invalidate()

    def _prompt(self) -> StyleAndTextTuples:
        width = self._session.output.get_size().columns
        return [("", _fitting(self._tail, width) + "\n"), ("bold", "> ")] if self._tail else [("bold", "> ")]

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("c-c")
        def _(event: KeyPressEvent) -> None:
            if event.current_buffer.text:
                event.current_buffer.reset()
            else:
                self._post(Interrupt())

        return keys

    def _post(self, event: Event) -> None:
        try:
            trio.from_thread.run_sync(self._send.send_nowait, event)
        except trio.WouldBlock:
            _write("· too many lines wait; this one was dropped\n")
        except (trio.BrokenResourceError, trio.RunFinishedError):
            self._editing.cancel()


@frozen
class _Ready:
    """Tells Trio that the loop is up."""

    token: trio.lowlevel.TrioToken
    started: trio.Event
    task_status: Any

    def tell(self) -> None:
        def up() -> None:
            self.started.set()
            self.task_status.started()

        self.token.run_sync_soon(up)


class _Commands(Completer):
    """Completes the first word of a line that starts with a slash."""

    def __init__(self, commands: Callable[[], Sequence[Command]]) -> None:
        self._commands = commands

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:  # noqa: ARG002
        typed = document.text_before_cursor
        if not typed.startswith("/") or " " in typed:
            return
        for command in self._commands():
            if command.name.startswith(typed[1:].lower()):
                hint = f" {command.hint}" if command.hint else ""
                yield Completion(
                    f"/{command.name}", start_position=-len(typed), display_meta=command.description or hint
                )


def _fitting(text: str, width: int) -> str:
    """Return the end of a text, as far as it fits into a row of this width."""
    text = text.replace("\t", " ")
    if get_cwidth(text) < width:
        return text
    room = width - 2
    kept: list[str] = []
    for char in reversed(text):
        room -= get_cwidth(char)
        if room < 0:
            break
        kept.append(char)
    return "…" + "".join(reversed(kept))


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
