"""What a program that replaces itself hands to its successor: the listening sockets, and its own words.

The sockets go over by the protocol of sd_listen_fds(3), in which systemd hands over those of a socket unit:
descriptors from 3 on, `LISTEN_FDS` of them, meant for the process `LISTEN_PID`. A process that execs itself keeps
its number, so a restart in place is socket activation by ourselves, and there is one way in for both. What is ours
has one variable more: where the sockets were to listen. If the config says another place by now they are not used.
Those of a socket unit are used wherever they listen: the unit decides that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen

__all__ = ["BOUND", "FIRST", "NAMES", "Handed", "program", "words"]

FIRST = 3  #: the first descriptor, as sd_listen_fds(3) says (SD_LISTEN_FDS_START)

BOUND = "GATEWAY_TRIO_BOUND"

#: The variables that hand sockets over. Whoever takes those takes these from its environment.
NAMES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", BOUND)


@frozen
class Handed:
    """Listening sockets on their way into a process.

    `count` descriptors, from `FIRST` on. `bound` is where they were to listen, as `place` writes it; None for the
    sockets of a socket unit.
    """

    count: int = 0
    bound: str | None = None

    @classmethod
    def read(cls, environ: Mapping[str, str], pid: int) -> Handed:
        """Return what was handed to the process `pid`: nothing, where the variables are meant for another."""
        count = environ.get("LISTEN_FDS", "")
        if environ.get("LISTEN_PID") != str(pid) or not (count.isascii() and count.isdecimal()):
            return cls()
        return cls(int(count), environ.get(BOUND))

    @staticmethod
    def place(host: str, port: int) -> str:
        """Return how `bound` says where a config wants to listen."""
        return f"{host} {port}"

    def fits(self, host: str, port: int) -> bool:
        """Whether a config that wants to listen there is to use them."""
        return self.count > 0 and self.bound in (None, self.place(host, port))

    def write(self, environ: Mapping[str, str], pid: int) -> dict[str, str]:
        """Return `environ` with what hands these to the process `pid`."""
        kept = {name: value for name, value in environ.items() if name not in NAMES}
        if not self.count:
            return kept
        bound = {} if self.bound is None else {BOUND: self.bound}
        return {**kept, "LISTEN_PID": str(pid), "LISTEN_FDS": str(self.count), **bound}


def words(executable: str, original: Sequence[str]) -> tuple[str, ...]:
    """Return the words that start this program again.

    Args:
        executable: the interpreter's path. It stands first, as an interpreter finds its libraries by that.
        original: what the process was started with, `sys.orig_argv`.

    """
    return (executable, *original[1:])


def program(executable: str, original: Sequence[str], arguments: Sequence[str]) -> tuple[str, ...]:
    """Return the words that start this program up to its own arguments, which are another's to choose.

    Args:
        executable: as in `words`.
        original: as in `words`.
        arguments: the program's name and its own arguments, `sys.argv`.

    """
    return words(executable, original)[: len(original) - (len(arguments) - 1)]
