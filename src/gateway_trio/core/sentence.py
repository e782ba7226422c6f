"""What a model's provider says of a fault, as one line that may be shown: bounded, and without the key."""

from __future__ import annotations

import json
import re

from gateway_trio.core.text import clean

__all__ = ["body_sentence", "sentence"]

_MOST_SENTENCE = 300  # characters of what a provider says of a fault
_MOST_LOOKED_AT = 4 * 1024  # of which that is made
_UNSHOWN = re.compile(r"[\x00-\x20\x7f-\x9f]+")


def sentence(body: object, hidden: str | None = None) -> str:
    """Return what a provider says of a fault, on one line of bounded length; empty if it says nothing to show.

    `hidden`, the key, which some repeat, is taken out of it.

    OpenAI and most servers say `{"error": {"message": …}}`, Ollama `{"error": …}`, older ones `{"message": …}`,
    FastAPI `{"detail": …}`. A page of HTML is nothing to show.
    """
    while isinstance(body, dict):
        body = next((body[key] for key in ("error", "message", "detail") if body.get(key)), None)
    if not isinstance(body, str):
        return ""
    text, cut = body[:_MOST_LOOKED_AT], len(body) > _MOST_LOOKED_AT
    if text.lstrip().startswith("<"):
        return ""
    if hidden:
        text = text.replace(hidden, "***")
        text = text[: -len(hidden)] if cut else text  # its end may be half of the key
    text = clean(_UNSHOWN.sub(" ", text).strip())
    return text if len(text) <= _MOST_SENTENCE and not cut else text[: _MOST_SENTENCE - 1] + "…"


def body_sentence(body: bytes, hidden: str | None = None) -> str:
    """Return the `sentence` of a response's body: of JSON, or of any other text."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = body.decode(errors="replace")
    return sentence(found, hidden)
