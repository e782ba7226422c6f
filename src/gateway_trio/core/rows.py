"""What a database keeps of an event: its body as a kind and JSON, and its text.

`dump_body` and `load_body` are each other's inverse; so are `dump_text` and `load_text`. What a body holds of
others (blocks, facts, updates) is JSON already, so that tuples in it come back as lists.
"""

from __future__ import annotations

import json
from typing import Any

from gateway_trio.core.events import Body, Change, Kind, Message, Prompt, Update
from gateway_trio.core.permission import Answered, Asked, Decision, PermissionOption

__all__ = ["dump_body", "dump_text", "load_body", "load_text"]


def dump_body(body: Body) -> tuple[str, str]:
    """Return a body's kind, a word, and the rest of it as JSON.

    Raises TypeError or ValueError for what is no JSON.
    """
    match body:
        case Message(kind):
            return "message", kind.value
        case Update(data):
            return "update", _dump(data)
        case Asked(id_, tool, options):
            return "asked", _dump([id_, tool, [_option(option) for option in options]])
        case Answered(id_, decision):
            option = None if decision.option is None else _option(decision.option)
            return "answered", _dump([id_, decision.outcome, option, decision.by])
        case Prompt():
            return "prompt", _dump(_given(body, blocks=list(body.blocks)))
    return "change", _dump(_given(body))


def load_body(kind: str, rest: str) -> Body:
    """Return the body that `dump_body` made these of. Raises ValueError for a kind that there is not."""
    match kind:
        case "message":
            return Message(Kind(rest))
        case "update":
            return Update(json.loads(rest))
        case "prompt":
            given = json.loads(rest)
            return Prompt(**given | {"blocks": tuple(given.get("blocks", ()))})
        case "change":
            return Change(**json.loads(rest))
        case "asked":
            id_, tool, options = json.loads(rest)
            return Asked(id_, tool, tuple(PermissionOption(*option) for option in options))
        case "answered":
            id_, outcome, option, by = json.loads(rest)
            return Answered(id_, Decision(outcome, None if option is None else PermissionOption(*option), by))
        case _:
            raise ValueError(f"there is no event of kind {kind!r}")


def dump_text(text: str) -> str | bytes:
    """Return a text as SQLite takes it: itself, or its bytes where half a surrogate pair stands in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def load_text(stored: str | bytes) -> str:
    """Return the text that `dump_text` made this of."""
    return stored if isinstance(stored, str) else stored.decode("utf-8", "surrogatepass")


def _option(option: PermissionOption) -> list[str]:
    return [option.id, option.name, option.kind]


def _given(body: Prompt | Change, **instead: Any) -> dict[str, Any]:
    """Return the fields that do not have their default."""
    given = {name: value for name, default in _DEFAULTS[type(body)] if (value := getattr(body, name)) != default}
    return given | {name: value for name, value in instead.items() if name in given}


_DEFAULTS = {kind: [(field.name, field.default) for field in kind.__attrs_attrs__] for kind in (Prompt, Change)}


_readable = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_ascii = json.JSONEncoder(separators=(",", ":"))


def _dump(value: Any) -> str:
    dumped = _readable.encode(value)
    return dumped if isinstance(dump_text(dumped), str) else _ascii.encode(value)
