"""A script behind a pipe and a session: a line in, its answer out, then the next."""

from __future__ import annotations

import codecs
import os
import sys
from typing import TextIO

import trio

from gateway_trio.client import Away, Lost, Notice, Outcome, Permission, Refused, Session, Text
from gateway_trio.core.printable import printable
from gateway_trio.core.transcript import notice

__all__ = ["LINE_CHARS", "LineTooLong", "pipe"]

#: A longer line is an error; the gateway takes 1 MiB by default.
LINE_CHARS = 1024 * 1024


class LineTooLong(Exception):
    """A line of the pipe is over `LINE_CHARS`."""


class _Lines:
    """The lines that come from a descriptor.

    A thread that waits in `sys.stdin` holds its lock, on which the interpreter's end would stumble; one that waits
    for a descriptor can be left behind.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._lines: list[str] = []
        self._rest = ""
        self._ended = False

    async def next(self) -> str | None:
        """Return the next line, None at the end. Raises `LineTooLong` for one over `LINE_CHARS`."""
        while not self._lines:
            if self._ended:
                rest, self._rest = self._rest, ""
                return rest or None
            data = await trio.to_thread.run_sync(os.read, self._descriptor, 64 * 1024, abandon_on_cancel=True)
            self._ended = not data
            *lines, self._rest = (self._rest + self._decoder.decode(data, self._ended)).split("\n")
            self._lines = lines[::-1]
            if len(self._rest) > LINE_CHARS:
                raise LineTooLong(f"a line is longer than {LINE_CHARS} characters")
        return self._lines.pop()


async def pipe(session: Session, descriptor: int, out: TextIO, errors: TextIO = sys.stderr) -> bool:
    """Send each line and write what is answered, until the lines end; return whether every prompt completed.

    Args:
        session: where to send them.
        descriptor: where the lines come from, in UTF-8.
        out: where the answers go.
        errors: where it is said why a prompt did not complete, and how the connection fares.

    Raises `LineTooLong` for a line over `LINE_CHARS`. Cancelling leaves running what runs at the gateway.

    """
    good, lines = True, _Lines(descriptor)
    while (line := await lines.next()) is not None:
        if text := line.strip():
            good = await _ask(session, text, out, errors) and good
    return good


async def _ask(session: Session, text: str, out: TextIO, errors: TextIO) -> bool:
    prompt = session.prompt(text)
    last = "\n"
    place: dict[int, int] = {}
    try:
        async for update in prompt:
            match update:
                case Text(kind="answer" | "output", seq=seq, at=at, text=said):
                    if at < place.get(seq, 0):
                        what = "was not right; from here on it is" if said else "is lost in its last words"
                        print(notice(f"what was said {what}"), file=errors)
                    place[seq] = at + len(said)
                case Notice(said):
                    pass
                case Away():
                    print(notice("connection lost, coming back …"), file=errors)
                    continue
                case Permission(title=title):
                    print(notice(f"waits for permission: {title}"), file=errors)
                    continue
                case _:
                    continue
            said = printable(said)
            print(said, end="", file=out, flush=True)
            last = said[-1:] or last
        outcome = await prompt.result()
    except (Refused, Lost) as error:
        print(notice(str(error)), file=errors, flush=True)
        return False
    finally:
        if last != "\n":
            print(file=out, flush=True)
    return _told(outcome, errors)


def _told(outcome: Outcome, errors: TextIO) -> bool:
    if outcome.state == "completed":
        return True
    why = f": {outcome.error}" if outcome.error is not None else ""
    print(notice(f"{outcome.state}{why}"), file=errors, flush=True)
    return False
