"""What a quick command's process is given, may use, and leaves behind: pure, no process, no clock.

`execs` carries it out. What a user sends reaches a command as arguments (`$1`, `$2`…) and in no other way,
and what the gateway knows reaches it only by the names in `ALLOWED` and the command's own `env`.
"""

from __future__ import annotations

import enum
import errno
from typing import TYPE_CHECKING, Literal

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "ALLOWED",
    "Facts",
    "Limits",
    "Spawn",
    "Status",
    "environment",
    "shell_argv",
    "why_not_started",
]

ALLOWED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "SHELL", "TERM")


class Status(enum.Enum):
    """How a command ended. The values are the words of the wire."""

    EXITED = "exited"
    SIGNALLED = "signalled"  #: the leader, by itself or by somebody else, not by us
    TIMEOUT = "timeout"
    KILLED = "killed"
    CANCELLED = "cancelled"
    OUTPUT_LIMIT = "output_limit"
    DEADLINE = "deadline"
    SPAWN_FAILED = "spawn_failed"
    UNKNOWN = "unknown"  #: the gateway ended first


@frozen
class Spawn:
    """What to start.

    Args:
      exec_id: Its number, unique over restarts: the marker.
      argv: The program and its arguments; no shell looks at them unless the program is one.
      env: The whole environment but the marker.
      cwd: Where it runs. None: the home directory.

    """

    exec_id: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str | None


@frozen
class Limits:
    """What a command may use.

    Args:
      timeout_seconds: From the spawn.
      term_seconds: From TERM to KILL.
      background: What it leaves running when it ends by itself is counted, and with `kill` also ended.
      output_bytes: More than that, as read, ends it.
      secrets: Values that its output must not show.

    """

    timeout_seconds: float
    term_seconds: float
    background: Literal["keep", "kill"] = "keep"
    output_bytes: int = 16 * 2**20
    secrets: tuple[str, ...] = ()


@frozen
class Facts:
    """How a command went.

    Args:
      status: How it ended; for one that was stopped, why, whatever its exit code.
      exit_code: Of the leader. None: it was ended by a signal, or there was none.
      signal: The number of what ended the leader, or None.
      seconds: From the spawn to the leader's exit.
      bytes: How much of its output was read.
      cut: How many characters of its output were not shown.
      background: How many processes were left when the leader exited by itself; with `background = "kill"`
        they have been ended. After a stop: how many could not be ended, usually none.
      error: For `spawn_failed`: why, in words. Else None.

    """

    status: Status
    exit_code: int | None
    signal: int | None
    seconds: float
    bytes: int
    cut: int
    background: int = 0
    error: str | None = None


def environment(base: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """Return the names of `base` that every command may see, and all of `extra`, which wins."""
    return {name: base[name] for name in ALLOWED if name in base} | dict(extra)


def shell_argv(name: str, command: str, words: Sequence[str]) -> tuple[str, ...]:
    """Return the argv that runs `command` in a shell, where the words are `$1`, `$2`…, never its text.

    `name` is the quick command's; it shows in the shell's own messages and in lists of processes.
    """
    return ("/bin/sh", "-c", command, f"gateway-trio:{name}", *words)


def why_not_started(program: str, cwd: str, exc: OSError | ValueError) -> str:
    """Return in words why a process could not be started, from what starting it raised.

    `cwd` is where it was to run: Python tells a missing directory from a missing program by the name only.
    """
    if not isinstance(exc, OSError):  # a NUL, a lone surrogate, an impossible name in the environment
        return f"cannot be started: {exc}"
    if exc.filename is not None and exc.filename == cwd != program:
        return f"cannot run in the directory {cwd!r}: {exc.strerror}"
    match exc.errno:
        case errno.ENOENT:
            return f"program not found: {program!r} (or what its first line names)"
        case errno.EACCES | errno.ENOEXEC:
            return f"not executable: {program!r} ({exc.strerror})"
        case errno.E2BIG:
            return "the arguments and the environment are too long"
        case _:
            return f"cannot be started: {exc.strerror}"
