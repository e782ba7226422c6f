"""What of a session a connection is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway_trio.core.commands import Role
from gateway_trio.core.event_log import Log
from gateway_trio.core.events import Entry, Prompt

if TYPE_CHECKING:
    from gateway_trio.auth import Principal

__all__ = ["sees"]


def sees(connection_id: str, principal: Principal, log: Log) -> Callable[[Entry], bool]:
    """Return what a cursor asks of each entry: admins' entries are for admins, and nobody's own prompt is
    echoed live. Those that stand in the log already are history, one's own too.
    """
    live_from = log.last + 1
    admin = principal.role is Role.ADMIN

    def sees_entry(entry: Entry) -> bool:
        if entry.admin and not admin:
            return False
        own = isinstance(entry.body, Prompt) and entry.body.sender == connection_id
        return not (own and entry.number >= live_from)

    return sees_entry
