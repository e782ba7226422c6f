"""The plain HTTP answers, one a connection: what `/livez` and `/readyz` say, and every refusal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import h11
from attrs import frozen

from gateway_trio.core.jsonrpc import Problem
from gateway_trio.core.phases import Phase, Reason

__all__ = ["Answer", "Status", "livez", "public", "readyz", "refuse", "to_bytes", "unwelcome"]

Status = Mapping[str, Any]


@frozen
class Answer:
    """Status code, body and further headers."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


def livez(status: Status) -> Answer:
    """200 while the loop runs, with what the gateway does as JSON."""
    return Answer(200, _json(status), "application/json")


def readyz(status: Status) -> Answer:
    """The same body; 503 where a balancer should send nobody here.

    Not for a failing backend: a balancer would take away every replica, and no operator could reach an exec.
    """
    leaving = {reason.value for reason in Reason if reason is not Reason.BACKEND} & set(status["reasons"])
    down = status["phase"] not in (Phase.OPEN.value, Phase.DRAINING.value) or leaving
    return Answer(503 if down else 200, _json(status), "application/json")


def public(status: Status) -> Status:
    """Return the part of the status that anyone may see where tokens are configured: no names, nobody's words."""
    return {name: status[name] for name in ("phase", "reasons", "remainingMs", "turns", "execs")}


def unwelcome(fault: Problem) -> Answer:
    """The refusal of a token, or of a request without one: 401 (RFC 6750 section 3), or 429 for one too many."""
    if fault.retry_after_ms is not None:
        return refuse(429, fault.message, ("Retry-After", str(-(-fault.retry_after_ms // 1000))))
    return refuse(401, fault.message, ("WWW-Authenticate", 'Bearer realm="gateway-trio"'))


def refuse(status: int, why: str, *headers: tuple[str, str]) -> Answer:
    """A refusal with its reason as text."""
    return Answer(status, f"{why}\n".encode("ascii", "backslashreplace"), headers=headers)


def to_bytes(answer: Answer, *, head_only: bool = False) -> bytes:
    """Return the whole response (RFC 9112); the connection closes after it."""
    connection = h11.Connection(h11.SERVER)
    headers = [
        ("Content-Type", answer.content_type),
        ("Content-Length", str(len(answer.body))),
        ("Connection", "close"),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        *answer.headers,
    ]
    reason = HTTPStatus(answer.status).phrase.encode()
    sent = connection.send(h11.Response(status_code=answer.status, headers=headers, reason=reason)) or b""
    return sent if head_only else sent + answer.body


def _json(status: Status) -> bytes:
    return (json.dumps(status) + "\n").encode()
