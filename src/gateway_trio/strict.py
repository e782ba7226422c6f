"""A tree of TOML to attrs classes: no coercion, and every fault at once with its dotted path.

cattrs makes the classes and collects the faults, as groups of exceptions with notes that say where. Its own
hooks coerce (`port = "80"` would do, and `"uptime"` for a list of strings), so each kind of value has a
strict one here. A field's attrs validator runs with its hook, so that each field's fault is found and not
only the first one of a class.

Messages are half a sentence that follows the path, and never repeat a value that has the wrong type: it may
be a secret that was put in the wrong place.
"""

import difflib
import enum
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, get_args, get_origin

import attrs
from cattrs import ClassValidationError, Converter, ForbiddenExtraKeysError, IterableValidationError
from cattrs.gen import make_dict_structure_fn, override

from gateway_trio.core.fields import ItemsError

__all__ = ["Fault", "choose", "dotted", "structure", "unknown_key"]

T = TypeVar("T", bound=attrs.AttrsInstance)

_KINDS: Mapping[type, str] = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "a table",
}
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


@attrs.frozen
class Fault:
    """What is wrong at a path, such as `server.hosts[1]`."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def structure(
    cls: type[T], tree: object, path: str, *, keys: Mapping[str, str] | None = None
) -> tuple[T | None, tuple[Fault, ...]]:
    """Return an instance of `cls`, or None and all that is wrong with the tree.

    Args:
        cls: an attrs class.
        tree: what stands in the file.
        path: where it stands there.
        keys: the keys of those fields that stand under another name than their own.

    """
    if not isinstance(tree, dict):
        return None, (Fault(path, _expected("a table", tree)),)
    keys = {name: name for name in attrs.fields_dict(cls)} | dict(keys or {})
    try:
        return _hook(cls, tuple(keys.items()))(tree), ()
    except ClassValidationError as error:
        return None, tuple(_faults(error, path, keys.values()))


def choose(value: object, options: Iterable[str]) -> str:
    """Return `value` if it is one of these strings. Raises ValueError, which names them and the nearest."""
    options = tuple(options)
    listed = " or ".join(f'"{option}"' for option in options)
    if not isinstance(value, str):
        raise _wrong(listed, value)
    if value not in options:
        raise ValueError(f"must be {listed}, not {value[:40]!r}{_meant(value, options)}")
    return value


def unknown_key(path: str, key: str, known: Iterable[str]) -> Fault:
    """Return the fault of a key that does not exist, with the nearest of those that do."""
    known = tuple(known)
    return Fault(dotted(path, key), "unknown key" + (_meant(key, known) or f"; known are {', '.join(known)}"))


def dotted(path: str, key: str) -> str:
    """Return the path of a key in the table at `path`, which is empty for the file itself."""
    key = key if _BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)
    return f"{path}.{key}" if path else key


def _meant(key: str, known: Iterable[str]) -> str:
    return "".join(f'; did you mean "{near}"?' for near in difflib.get_close_matches(key[:64], list(known), n=1))


def _expected(what: str, value: object) -> str:
    return f"must be {what}, not {_KINDS.get(type(value), 'a date or time')}"


def _wrong(what: str, value: object) -> ValueError:
    return ValueError(_expected(what, value))


# --- the faults of cattrs ---------------------------------------------------------------------------


def _faults(error: Exception, path: str, known: Iterable[str] | None = None) -> Iterator[Fault]:
    """Yield what is wrong. `known` are the keys of the class at `path`, None for the names of its fields."""
    match error:
        case ClassValidationError():
            fields, whole = error.group_exceptions()
            for inner, field_note in fields:
                yield from _faults(inner, dotted(path, field_note.name))
            yield from (fault for inner in whole for fault in _faults(inner, path, known))
        case IterableValidationError():
            for inner, note in error.group_exceptions()[0]:
                yield from _faults(inner, _at(path, note.index))
        case ForbiddenExtraKeysError():
            for key in sorted(error.extra_fields):
                yield unknown_key(path, key, known or attrs.fields_dict(error.cl))
        case ItemsError():
            for index, message in error.messages.items():
                yield Fault(f"{path}[{index}]", message)
        case KeyError():
            yield Fault(path, "is required")
        case _:  # a ValueError, from a hook or a validator
            yield Fault(path, str(error))


def _at(path: str, index: int | str) -> str:
    return f"{path}[{index}]" if isinstance(index, int) else dotted(path, index)


# --- the hooks --------------------------------------------------------------------------------------


def _scalar(value: object, kind: type) -> Any:
    """`float` takes whole numbers too; `bool` is a whole number for Python and not for us."""
    if type(value) is kind or (kind is float and type(value) is int):
        return value
    raise _wrong(_KINDS[kind], value)


def _tuple(value: object, kind: Any) -> Any:
    if not isinstance(value, list):
        raise _wrong("a list", value)
    kind_of_list: Any = list[get_args(kind)[0]]  # type: ignore[misc]
    return tuple(_converter().structure(value, kind_of_list))


def _table(value: object, kind: Any) -> Any:
    if not isinstance(value, dict):
        raise _wrong("a table", value)
    kind_of_dict: Any = dict[get_args(kind)]  # type: ignore[misc]
    return _converter().structure(value, kind_of_dict)


def _literal(value: object, kind: Any) -> str:
    return choose(value, get_args(kind))


def _member(value: object, kind: type[enum.Enum]) -> enum.Enum:
    return kind(choose(value, [member.value for member in kind]))


def _class(value: object, kind: Any) -> Any:
    if not isinstance(value, dict):
        raise _wrong("a table", value)
    return _hook(kind, tuple((name, name) for name in attrs.fields_dict(kind)))(value)


def _origin_is(origin: Any) -> Callable[[Any], bool]:
    return lambda kind: get_origin(kind) is origin


@functools.cache
def _converter() -> Converter:
    converter = Converter(detailed_validation=True)
    for scalar in (str, bool, int, float):
        converter.register_structure_hook(scalar, _scalar)
    converter.register_structure_hook_func(attrs.has, _class)
    for origin, hook in ((tuple, _tuple), (Mapping, _table), (Literal, _literal)):
        converter.register_structure_hook_func(_origin_is(origin), hook)
    converter.register_structure_hook_func(
        lambda kind: isinstance(kind, type) and issubclass(kind, enum.Enum), _member
    )
    return converter


def _checked(attribute: "attrs.Attribute[Any]") -> Callable[[object, Any], Any]:
    """Return a hook that makes a field's value and asks the field's validator."""

    def hook(value: object, kind: Any) -> Any:
        made = _converter().structure(value, kind)
        if attribute.validator is not None:
            attribute.validator(None, attribute, made)
        return made

    return hook


@functools.cache
def _hook(cls: type[T], keys: tuple[tuple[str, str], ...]) -> Callable[[Mapping[str, Any]], T]:
    attributes = attrs.fields_dict(cls)
    overrides: Any = {name: override(rename=key, struct_hook=_checked(attributes[name])) for name, key in keys}
    make = make_dict_structure_fn(cls, _converter(), _cattrs_forbid_extra_keys=True, **overrides)
    return lambda tree: make(tree, cls)
