"""What can be the name or the address of a host."""

from __future__ import annotations

import re

__all__ = ["host_fault"]


def host_fault(host: str) -> str | None:
    """Return what is wrong with a host's name or address, as the rest of a sentence; None for nothing."""
    if not re.fullmatch(r"[^\s/]+", host):
        return "must be a host's name or address, without scheme or path"
    try:
        host.encode("idna")
    except UnicodeError:
        return "must be a host's name or address: of characters that a name can have, 1 to 63 between two dots"
    return None
