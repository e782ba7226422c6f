"""What `ctl` writes: the result on stdout, all else on stderr; with `--json` one object on stdout instead.

What comes from a gateway is filtered before a terminal gets it: it may hold whatever somebody wrote.
"""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TextIO

from rich import progress as progress_bar
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gateway_trio.core.printable import printable
from gateway_trio.core.waits import Seen, progress
from gateway_trio.ctl.outlet import Outlet, stream_outlet

__all__ = ["Progress", "Screen"]

_LONG = 2000  #: from so many on something is long
_WIDE = 2000  # columns where nothing shows lines, so that none is folded


class Screen:
    """Two streams and a taste.

    Args:
        as_json: whether the result is to be one JSON object.
        out: for the result.
        err: for everything else.

    """

    def __init__(self, *, as_json: bool, out: TextIO, err: TextIO) -> None:
        self.as_json = as_json
        for stream in (out, err):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")  # a terminal that lacks a character shows another
        self._out, self._err = out, err
        self._terminal = Console(file=err)

    def result(self, value: Mapping[str, Any], said: str) -> None:
        """Write what came of it: the object, or the sentence."""
        self._print(json.dumps(value) if self.as_json else printable(said))

    def failure(self, value: Mapping[str, Any], said: str) -> None:
        """Write what went wrong: as `{"error": …}` on stdout, or as a sentence on stderr."""
        if self.as_json:
            self._print(json.dumps({"error": value}))
        else:
            self.note(said)

    def note(self, said: str) -> None:
        """Tell a person something beside the result."""
        print(f"gateway-trio: {printable(said)}", file=self._err, flush=True)

    def table(self, value: Mapping[str, Any], rows: Iterable[tuple[str, str]]) -> None:
        """Write a result of two columns: the object, or the rows."""
        if self.as_json:
            self._print(json.dumps(value))
            return
        table = Table.grid(padding=(0, 2))
        for name, said in rows:
            table.add_row(Text(name, style="bold"), Text(said, overflow="fold"))
        self._draw(table)

    def listing(self, value: Mapping[str, Any], columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write a result of many rows: the object, or a table."""
        if self.as_json:
            self._print(json.dumps(value))
            return
        table = Table(*columns, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(Text(printable(said), overflow="fold") for said in row))
        self._draw(table)

    def _draw(self, table: Table) -> None:
        terminal = Console(file=self._out, width=None if self._out.isatty() else _WIDE)
        with terminal.capture() as drawn:  # rich would answer a closed pipe by itself
            terminal.print(table)
        self._out.write(drawn.get())
        self._out.flush()

    def outlet(self) -> AbstractAsyncContextManager[Outlet]:
        """Return what writes much text to where results go."""
        return stream_outlet(self._out)

    @contextlib.contextmanager
    def bar(self, what: str, total: int, *, beside_output: bool) -> Iterator[Callable[[int], object]]:
        """Show how far something long is, on a terminal only; what this gives is called with how far.

        `beside_output` says that the result is written meanwhile, which a bar on the same terminal would disturb.
        """
        if not self._terminal.is_terminal or total < _LONG or (beside_output and self._out.isatty()):
            yield lambda _: None
            return
        bar = progress_bar.Progress(
            progress_bar.TextColumn("{task.description}"), progress_bar.BarColumn(),
            progress_bar.MofNCompleteColumn(), progress_bar.TimeRemainingColumn(),
            console=self._terminal, transient=True, redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        with bar:
            task = bar.add_task(printable(what), total=total)
            far = 0

            def advance(to: int) -> None:
                nonlocal far
                far = max(far, to)
                bar.update(task, completed=far)

            yield advance

    def output(self, text: str) -> None:
        """Write a command's output as it is; to a terminal without control characters, and with a last newline."""
        if self._out.isatty():
            text = printable(text)
            text += "" if text.endswith("\n") or not text else "\n"
        self._out.write(text)
        self._out.flush()

    @contextlib.contextmanager
    def progress(self) -> Iterator[Progress]:
        """Show how far a wait is: a line that changes on a terminal, else a line a change; on stderr."""
        shown = Progress(self._err)
        if not self._terminal.is_terminal:
            shown.print_changes = True
            yield shown
            return
        live = Live(
            get_renderable=shown.line, console=self._terminal, transient=True,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        with live:
            yield shown

    def _print(self, line: str) -> None:
        print(line, file=self._out, flush=True)


class Progress:
    """The newest that was seen, and since when the wait goes on. `line` is for any thread."""

    def __init__(self, err: TextIO) -> None:
        self.print_changes = False
        self._err = err
        self._began = time.monotonic()
        self._seen: tuple[Seen, float] | None = None
        self._said = ""

    def show(self, seen: Seen) -> None:
        """There is something new to see."""
        self._seen = (seen, time.monotonic())
        said = progress(seen, seen.left)
        if self.print_changes and said != self._said:
            self._said = said
            print(self.line(), file=self._err, flush=True)

    def line(self) -> Text:
        """Return what is to be seen now; what is left of the phase goes down by itself."""
        now = time.monotonic()
        if self._seen is None:
            return Text("")
        seen, at = self._seen
        left = None if seen.left is None else seen.left - (now - at)
        return Text(
            printable(f"{now - self._began:6.1f} s  {progress(seen, left)}"), no_wrap=True, overflow="ellipsis"
        )
