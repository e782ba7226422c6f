"""What can go wrong for a client, as one tree:

    ClientError
    ├── Unreachable       there is no connection, and no gateway said why it refused who asked
    ├── Unauthorized      the gateway does not know the token, or wants one
    ├── Refused           the gateway answered with an error: branch on `reason`
    └── Lost              the connection went before the answer came; what was asked may have been done
        └── Closed        and it does not come back: `code` says why

Each is a sentence for a person; the fields are for programs. None holds a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

__all__ = ["ClientError", "Closed", "Lost", "Refused", "Unauthorized", "Unreachable", "Unread", "refused"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class ClientError(Exception):
    """Whatever this library raises, but for ValueError where it is used wrongly."""


class Unreachable(ClientError):
    """There is no connection.

    Args:
        message: a sentence for a person.
        status: the HTTP status with which the upgrade was refused; None if none came.
        retryable: whether it may help to try again.
        retry_after_ms: the milliseconds after which, if the other side named them; else None.

    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retryable: bool = True,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = retryable
        self.retry_after_ms = retry_after_ms


class Unauthorized(ClientError):
    """The token is wrong or missing.

    Args:
        message: a sentence for a person.
        retry_after_ms: the milliseconds after which another may be tried, if there were too many; else None.

    """

    def __init__(self, message: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class Refused(ClientError):
    """The gateway answered with an error.

    `code` is JSON-RPC's, `reason` one of those in docs/protocol.md. `retryable` says whether the same may be sent
    again, `retry_after_ms` when (None: not said). `admitted` is False where nothing was started, True where it
    was, None where the question makes no sense. `reasons` are those of the drain, `data` is all that came.
    """

    def __init__(self, message: str, *, code: int = 0, data: Mapping[str, Any] = _NOTHING) -> None:
        super().__init__(message)
        self.code = code
        self.data = data

    @property
    def reason(self) -> str:
        return str(self.data.get("reason", ""))

    @property
    def retryable(self) -> bool:
        return self.data.get("retryable") is True

    @property
    def retry_after_ms(self) -> int | None:
        value = self.data.get("retryAfterMs")
        return value if isinstance(value, int) else None

    @property
    def admitted(self) -> bool | None:
        value = self.data.get("admitted")
        return value if isinstance(value, bool) else None

    @property
    def reasons(self) -> Sequence[str]:
        value = self.data.get("reasons")
        return [str(reason) for reason in value] if isinstance(value, list) else []


def refused(error: Any) -> Refused:
    """Return a JSON-RPC error object, whatever it holds, as what is to be raised."""
    error = error if isinstance(error, dict) else {}
    code, data = error.get("code"), error.get("data")
    return Refused(
        str(error.get("message", "the gateway refused")),
        code=code if isinstance(code, int) else 0,
        data=data if isinstance(data, dict) else _NOTHING,
    )


class Lost(ClientError):
    """The connection is gone.

    Args:
        message: a sentence for a person.
        code: the close code; None if there was none, as where the network broke.

    """

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class Unread(Lost):
    """The connection was given up, as the gateway could not read something that was sent. What it may have been is
    not sent again: it would break the next connection too.
    """


class Closed(Lost):
    """The connection is gone for good: its code says not to come back, or coming back was given up."""
