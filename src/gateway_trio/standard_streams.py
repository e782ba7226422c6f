"""Standard input, output and error of the programs that write a result: also closed, full, or poor in characters.

What cannot be written to stdout, as the disk is full or the shell has closed it, ends such a program with 73 and a
sentence on stderr, whatever it was doing.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from gateway_trio.core.exits import Exit

__all__ = ["CannotWrite", "run_program", "writing"]


class CannotWrite(OSError):
    """The result cannot be written."""


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Raise what goes wrong in writing the result as `CannotWrite`; that nobody reads on is a BrokenPipeError."""
    try:
        yield
    except (BrokenPipeError, CannotWrite):
        raise
    except OSError as fault:
        raise CannotWrite(fault.errno, fault.strerror) from fault


class _Output(io.FileIO):
    """Where stdout goes."""

    def write(self, data: Any) -> int:
        with writing():
            return super().write(data)


class _Errors(io.FileIO):
    """Where stderr goes. What cannot be told there is dropped: it changes nothing of how a program ends."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def run_program(program: Callable[[], int], *, nobody_reads: int = 128 + signal.SIGPIPE) -> int:
    """Run a program on standard streams that are there, and return its exit code.

    Args:
        program: writes its result to `sys.stdout`.
        nobody_reads: the code where whoever read the result has left.

    """
    _open_streams()
    code: int = Exit.CANNOT_WRITE
    try:
        code = program()
        sys.stdout.flush()
    except* CannotWrite as group:
        code = Exit.CANNOT_WRITE
        _discard(sys.stdout)
        sys.stderr.write(f"gateway-trio: the output cannot be written: {_first(group).strerror}\n")
    except* BrokenPipeError:
        code = nobody_reads
        _discard(sys.stdout)
    return code


def _open_streams() -> None:
    """Put something in place of the streams that are closed: nothing to read, nowhere to tell, no way to write."""
    if sys.stdin is None:
        sys.stdin = open(os.open(os.devnull, os.O_RDONLY), encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stdout is None:
        descriptor, encoding, interactive = os.open(os.devnull, os.O_RDONLY), "utf-8", False
    else:
        sys.stdout.flush()
        descriptor, encoding, interactive = sys.stdout.fileno(), sys.stdout.encoding, sys.stdout.isatty()
    raw = _Output(descriptor, "w", closefd=False)
    # What the terminal has no character for is shown as another.
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, errors="replace", newline="\n", line_buffering=interactive
    )
    if sys.stderr is None:
        sys.stderr = open(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")  # noqa: SIM115, PTH123
    else:
        sys.stderr.flush()
        errors = io.BufferedWriter(_Errors(sys.stderr.fileno(), "w", closefd=False))
        sys.stderr = io.TextIOWrapper(
            errors, sys.stderr.encoding, errors="backslashreplace", newline="\n", line_buffering=True
        )


def _discard(stream: TextIO) -> None:
    """Let what a stream still has go nowhere: Python would try again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _first(error: BaseException) -> Any:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
