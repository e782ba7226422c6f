"""The plain HTTP answers: `/livez`, `/readyz`, and every refusal. One answer a connection."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import h11
from attrs import frozen

from gateway_trio.core.lifecycle import Phase, Reason

__all__ = ["PAGES", "Answer", "livez", "readyz", "refuse", "to_bytes"]

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


#: The paths that are answered with a page.
PAGES: Mapping[str, Callable[[Status], Answer]] = {"/livez": livez, "/readyz": readyz}


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
