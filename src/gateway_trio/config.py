"""The config: TOML to a frozen `Config`.

`parse_config` and `load_config` raise `ConfigError` with every fault at once: wrong types, unknown keys,
numbers out of range, sums that do not fit, quick commands that clash. A library's user may build the same
classes directly; the checks hold there too, as the ValueError of the first fault.
The tables themselves are in `tables`, the structuring in `strict`.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from attrs import AttrsInstance

from gateway_trio.agent_tables import AGENTS, AgentConfig, EchoAgentConfig, OpenAIAgentConfig
from gateway_trio.core.catalog import find_faults
from gateway_trio.core.kinds import AliasCommand, ExecCommand, QuickCommand
from gateway_trio.strict import Fault, choose, dotted, structure, unknown_key
from gateway_trio.tables import (
    PUBLIC_NAMES,
    AuthConfig,
    BreakerConfig,
    Config,
    ConfigError,
    DrainConfig,
    ExecConfig,
    ServerConfig,
    SessionConfig,
    StoreConfig,
    TokenConfig,
    sum_faults,
)
from gateway_trio.tokens import token_faults
from gateway_trio.tomlfile import parse_toml, read_text

__all__ = [
    "PUBLIC_NAMES",
    "AgentConfig",
    "AliasCommand",
    "AuthConfig",
    "BreakerConfig",
    "Config",
    "ConfigError",
    "DrainConfig",
    "EchoAgentConfig",
    "ExecCommand",
    "ExecConfig",
    "Fault",
    "OpenAIAgentConfig",
    "QuickCommand",
    "ServerConfig",
    "SessionConfig",
    "StoreConfig",
    "TokenConfig",
    "is_loopback",
    "load_config",
    "load_server",
    "parse_config",
    "secrets",
]

_SHORTEST_SECRET = 8  # characters; a shorter one would be found in any text

T = TypeVar("T", bound=AttrsInstance)

# --- from the file ------------------------------------------------------------------------------------

_TABLES: Mapping[str, type[AttrsInstance]] = MappingProxyType(
    {
        "server": ServerConfig,
        "session": SessionConfig,
        "exec": ExecConfig,
        "drain": DrainConfig,
        "breaker": BreakerConfig,
        "auth": AuthConfig,
        "store": StoreConfig,
    }
)
_QUICK: Mapping[str, type[QuickCommand]] = MappingProxyType({"exec": ExecCommand, "alias": AliasCommand})


def load_config(path: str | Path, environ: Mapping[str, str]) -> Config:
    """Return the config in a file, which nobody but its owner may be able to write.

    Args:
        path: of the file, UTF-8.
        environ: the environment in which the names that it mentions are looked up.

    Raises `ConfigError` with all faults, also where the file cannot be read.

    """
    text, faults = read_text(path)
    try:
        config = parse_config(text, source=str(path), environ=environ)
    except ConfigError as error:
        raise ConfigError(faults + error.faults) from None
    if faults:
        raise ConfigError(faults)
    return config


def load_server(path: str | Path) -> ServerConfig:
    """Return the `[server]` of a config, for a client of that gateway: it lacks the environment for the rest.

    Raises `ConfigError` with all faults of that table and of the file, which nobody else may be able to write: a
    token is sent to where it says.
    """
    text, faults = read_text(path)
    server, wrong = structure(ServerConfig, parse_toml(text, str(path)).get("server", {}), "server")
    if server is None or faults:
        raise ConfigError((*faults, *wrong))
    return server


def parse_config(text: str, *, source: str = "<config>", environ: Mapping[str, str]) -> Config:
    """Return the config that a text holds.

    Args:
        text: TOML.
        source: what to call the text where it is no TOML.
        environ: the environment in which the names that it mentions are looked up.

    Raises `ConfigError` with all faults.

    """
    tree = parse_toml(text, source)
    known = (*_TABLES, "agent", "quick_commands")
    faults = [unknown_key("", key, known) for key in tree if key not in known]
    made: dict[str, Any] = {}
    for name, cls in _TABLES.items():
        made[name], wrong = structure(cls, tree.get(name, {}), name)
        faults += wrong
    made["agent"], wrong = _tagged(AGENTS, tree.get("agent", {}), "agent", default=next(iter(AGENTS)))
    faults += wrong or _key_faults(made["agent"], environ)
    if made["drain"] and made["exec"]:
        faults += sum_faults(made["drain"], made["exec"])
    if made["auth"]:
        faults += token_faults(made["auth"], environ)
    made["quick_commands"], wrong = _quick_commands(tree.get("quick_commands", {}))
    faults += wrong
    if faults:
        raise ConfigError(tuple(faults))
    return Config(**made)


def _tagged(
    classes: Mapping[str, type[T]],
    tree: object,
    path: str,
    *,
    default: str | None = None,
    name: str | None = None,
) -> tuple[T | None, tuple[Fault, ...]]:
    """Return an instance of the class that the table's `type` names, or None and all that is wrong.

    Where a `name` is given it comes from the path and not from the table, and the class has no field for
    `type`: the name takes that key's place, so that a key `name` is unknown like any other.
    """
    if not isinstance(tree, dict):
        return structure(classes[default or next(iter(classes))], tree, path)
    if "type" not in tree and default is None:
        return None, (Fault(f"{path}.type", f"is required: {' or '.join(classes)}"),)
    try:
        cls = classes[choose(tree.get("type", default), classes)]
    except ValueError as error:
        return None, (Fault(f"{path}.type", str(error)),)
    if name is None:
        return structure(cls, tree, path)
    return structure(cls, tree | {"type": name}, path, keys={"name": "type"})


def _key_faults(agent: AgentConfig, environ: Mapping[str, str]) -> Iterator[Fault]:
    if isinstance(agent, OpenAIAgentConfig):
        try:
            agent.api_key(environ)
        except ValueError as error:
            yield Fault("agent.api_key_env", str(error))


def _quick_commands(tree: object) -> tuple[dict[str, QuickCommand], tuple[Fault, ...]]:
    if not isinstance(tree, dict):
        return {}, (Fault("quick_commands", "must be tables, as in [quick_commands.NAME]"),)
    made: dict[str, QuickCommand] = {}
    faults: list[Fault] = []
    for name, table in tree.items():
        command, wrong = _tagged(_QUICK, table, dotted("quick_commands", name), name=name)
        faults += wrong
        if command is not None:
            made[name] = command
    for fault in find_faults(made.values(), unread=[name for name in tree if name not in made]):
        path = dotted("quick_commands", fault.name)
        faults.append(Fault(f"{path}.{fault.key}" if fault.key else path, fault.message))
    return made, tuple(faults)


# --- what others ask --------------------------------------------------------------------------------


def secrets(
    config: Config, environ: Mapping[str, str], earlier: tuple[str, ...] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the values that no exec may show, the longest first, and the names of those too short to find.

    Args:
        config: which mentions the names.
        environ: which has the values. A name that it does not have, or has empty, is no secret.
        earlier: the values of an earlier config, which stay secret.

    """
    present = {name: environ[name] for name in config.secret_names if environ.get(name)}
    values = {value for value in present.values() if len(value) >= _SHORTEST_SECRET} | set(earlier)
    short = tuple(name for name, value in present.items() if value not in values)
    return tuple(sorted(values, key=lambda value: (-len(value), value))), short


def is_loopback(host: str) -> bool:
    """Whether an address, or the name `localhost`, is this machine's own. `0.0.0.0`, `::` and `` are not."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
