"""With which code `gateway-trio ctl` and `sessions` exit: one table, in docs/operations.md too.

Where sysexits.h has a word for it, its number is taken; 2 is what the command line's parser exits with, 124 what
timeout(1) does, and 128 + n what shells make of a signal.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["Exit", "exit_of_exec", "exit_of_refusal"]


class Exit(enum.IntEnum):
    """What came of it."""

    DONE = 0
    REFUSED = 1  #: or it came to nothing: a drain that was taken back while it was waited for
    USAGE = 2  #: the command line; also words that a quick command does not take, and one that there is not
    UNREACHABLE = 69  #: EX_UNAVAILABLE: there is no gateway, or the connection to it is gone
    FAULT = 70  #: EX_SOFTWARE: a fault of the gateway's own
    CANNOT_WRITE = 73  #: EX_CANTCREAT: the result, or the file for it
    LATER = 75  #: EX_TEMPFAIL: refused for now; the same may be asked again
    NOT_ALLOWED = 77  #: EX_NOPERM: the token is missing or unknown, or its role does not suffice
    CONFIG = 78  #: EX_CONFIG: a config that cannot be used; of a client: that says no address
    TIMED_OUT = 124  #: the time of `--timeout` is over; or a quick command's own is
    ENDED = 125  #: a quick command that could not be started, or that did not end by itself


#: Reasons of a refusal (docs/protocol.md) that say more than whether the same may be asked again.
_REASONS: Mapping[str, Exit] = MappingProxyType(
    {
        "auth_required": Exit.NOT_ALLOWED,
        "forbidden": Exit.NOT_ALLOWED,
        "usage": Exit.USAGE,
        "invalid_params": Exit.USAGE,
        "internal": Exit.FAULT,
    }
)


def exit_of_refusal(reason: str, *, retryable: bool) -> Exit:
    """Return the code for a refusal of the gateway's, by its reason, else by whether it may be asked again."""
    return _REASONS.get(reason, Exit.LATER if retryable else Exit.REFUSED)


def exit_of_exec(status: str, exit_code: object, signal: object) -> int:
    """Return the code for a quick command that ended: its own, where it ended by itself.

    Args:
        status: one of docs/protocol.md.
        exit_code: of the command; None where it has none.
        signal: the number of the signal that ended it; None for none.

    """
    match status:
        case "exited" if isinstance(exit_code, int):
            return exit_code
        case "signalled" if isinstance(signal, int):
            return 128 + signal
        case "timeout":
            return Exit.TIMED_OUT
        case _:
            return Exit.ENDED
