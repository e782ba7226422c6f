"""A script behind a pipe and a session: a line in, its answer out, then the next."""

from __future__ import annotations

import sys
from typing import TextIO

import trio

from gateway_trio.client import Away, Lost, Notice, Outcome, Permission, Refused, Session, Text
from gateway_trio.core.printable import printable
from gateway_trio.core.transcript import notice

__all__ = ["pipe"]


async def pipe(session: Session, lines: TextIO, out: TextIO, errors: TextIO = sys.stderr) -> bool:
    """Send each line and write what is answered, until the lines end; return whether every prompt completed.

    Why one did not is written to `errors`. Cancelling leaves what runs at the gateway running.
    """
    good = True
    while line := await trio.to_thread.run_sync(lines.readline, abandon_on_cancel=True):
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
                        print(notice("what was said was not right; from here on it is"), file=errors)
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
