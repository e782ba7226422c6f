"""A session's updates as lines for a terminal: those that are complete, and the one that still grows.

Several messages may grow at once, an answer and a command's output: each has a line of its own in the making, and
the one that grew last is the one to show.
"""

from __future__ import annotations

from attrs import define

from gateway_trio.core.printable import printable
from gateway_trio.core.updates import (
    Gap,
    NewConversation,
    Notice,
    Permission,
    Skipped,
    State,
    Text,
    Tool,
    Update,
)

__all__ = ["Transcript", "notice"]

#: A line of a message that is longer is broken, at a blank if there is one.
LINE_CHARS = 2000

_OUTCOMES = {"cancelled": "cancelled", "interrupted": "interrupted", "failed": "failed"}


def notice(text: str) -> str:
    """Return a notice as a line."""
    return "· " + " ".join(printable(text).split())


@define
class _Growing:
    owner: str
    kind: str
    end: int
    line: str = ""


class Transcript:
    """Updates in, lines out. `own` are the texts that this terminal's user sent and need not see again."""

    def __init__(self) -> None:
        self.own: list[str] = []
        self._growing: dict[int, _Growing] = {}
        self._shown = 0

    def growing(self) -> str:
        """Return the line that grows; empty for none."""
        message = self._growing.get(self._shown)
        return "" if message is None else message.line

    def take(self, update: Update) -> list[str]:
        """Return the lines that are complete with this update, without their newlines."""
        match update:
            case Text():
                return self._text(update)
            case State(id=owner):
                return [*self._close(owner), *self._state(update)]
            case Tool(owner=owner, title=title, status=status):
                lines = self._close(owner)
                if title is not None and status not in ("completed", "failed"):
                    lines.append(notice(title))
                return [*lines, notice("that failed")] if status == "failed" else lines
            case Notice(text):
                return printable(text).split("\n")
            case NewConversation():
                return [notice("a new conversation")]
            case Gap():
                return [notice("something was said here that is not kept any more")]
            case Skipped(count):
                return [notice(f"{count} lines came too fast to be shown")]
            case Permission(title=title, options=options):
                names = ", ".join(option.name for option in options)
                return [notice(f"may it: {title}? /allow or /deny ({names})")]
        return []

    def flush(self) -> list[str]:
        """Return what is incomplete, as it is."""
        lines = [message.line for message in self._growing.values() if message.line]
        self._growing.clear()
        return lines

    def _text(self, piece: Text) -> list[str]:
        if piece.kind == "prompt" and piece.text in self.own:
            self.own.remove(piece.text)
            return []
        lines = []
        message = self._growing.get(piece.seq)
        if message is None:
            lines = self._close(piece.owner)
            message = self._growing[piece.seq] = _Growing(piece.owner, piece.kind, piece.at)
            message.line = {"prompt": "> ", "thought": "· "}.get(piece.kind, "")
        elif piece.at != message.end:
            what = "that was not right; from here on it is" if piece.text else "the last words of that are lost"
            lines = [*([message.line] if message.line else []), notice(what)]
            message.line = ""
        self._shown = piece.seq
        message.end = piece.at + len(piece.text)
        *complete, message.line = (message.line + printable(piece.text)).split("\n")
        while len(message.line) > LINE_CHARS:
            place = message.line.rfind(" ", 1, LINE_CHARS) + 1 or LINE_CHARS
            complete.append(message.line[:place])
            message.line = message.line[place:]
        return lines + complete

    def _close(self, owner: str) -> list[str]:
        """Something else of this owner follows, so its messages grow no more."""
        numbers = [number for number, message in self._growing.items() if message.owner == owner]
        closed = [self._growing.pop(number) for number in numbers]
        return [message.line for message in closed if message.line]

    def _state(self, state: State) -> list[str]:
        if state.state == "queued" and state.position:
            return [notice(f"queued, {state.position} before it")]
        if state.work == "exec" or state.state not in _OUTCOMES:  # an exec's output ends with how it ended
            return []
        why = state.message or (None if state.state == "cancelled" else state.reason)
        return [notice(_OUTCOMES[state.state] + (f": {why}" if why else ""))]
