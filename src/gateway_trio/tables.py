"""The tables of the config, on one page: each key with its default, its unit and its check.

A time is `seconds(default)`, a number `count(default, least=…, most=…)`, both of `core.fields`. A comment
says what the name does not. `[agent]` is in `agent_tables`; `[quick_commands.NAME]` is an `ExecCommand` or
`AliasCommand` of `core.kinds`.
"""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from attrs import field, frozen

from gateway_trio.agent_tables import AgentConfig, EchoAgentConfig
from gateway_trio.core.catalog import Catalog
from gateway_trio.core.fields import count, seconds, text, texts
from gateway_trio.core.hosts import host_fault
from gateway_trio.core.kinds import ExecCommand, QuickCommand, Role
from gateway_trio.strict import Fault

__all__ = [
    "PUBLIC_NAMES",
    "AuthConfig",
    "BreakerConfig",
    "Config",
    "ConfigError",
    "DrainConfig",
    "ExecConfig",
    "ServerConfig",
    "SessionConfig",
    "StoreConfig",
    "TokenConfig",
    "sum_faults",
]


def _bind_fault(host: str) -> str | None:
    return host_fault(host) if host else None  # an empty one: every address


def _origin_fault(origin: str) -> str | None:
    good = re.fullmatch(r"https?://[^\s/*?#@]+", origin)
    return None if good else "must be an exact origin, such as https://chat.example.org, with no path"


@frozen
class ServerConfig:
    """`[server]`: the one port, and who may reach it."""

    host: str = text(_bind_fault, default="127.0.0.1")  # off loopback only with tokens
    port: int = count(8765, most=65_535)  # 0: one that is free
    hosts: tuple[str, ...] = texts(host_fault)  # what `Host` may say beside loopback names
    allowed_origins: tuple[str, ...] = texts(_origin_fault)  # what `Origin` may say beside the same host
    max_connections: int = count(1000, least=1, most=1_000_000)
    max_message_bytes: int = count(1_048_576, least=1024, most=1 << 30)  # of UTF-8; a larger one: 1009
    send_seconds: float = seconds(20)  # a client that takes no byte for so long is closed
    #: What the program does at a restart: exit with 75, or exec itself with the port kept open. With `auto` it
    #: exits where a supervisor is known to start it again (`core.supervision.is_supervised`).
    restart: Literal["auto", "exit", "exec"] = "auto"


@frozen
class SessionConfig:
    """`[session]`: the turns of one conversation."""

    busy: Literal["queue", "interrupt", "refuse"] = "queue"  # a prompt that comes while a turn runs
    queue_limit: int = count(32, most=100_000)  # prompts that wait; beyond it they are refused
    turn_idle_seconds: float = seconds(600)  # without anything from the agent
    turn_seconds: float = seconds(3600)
    permission_seconds: float = seconds(600)  # after the last client has gone
    keep_bytes: int = count(8_388_608, least=1024, most=1 << 34)  # of a session in memory: log, and history
    queued_seconds: float = seconds(3600)  # a prompt that waited longer when the gateway starts again is not run


@frozen
class ExecConfig:
    """`[exec]`: what holds for all exec commands together."""

    max_running: int = count(8, least=1, most=10_000)
    max_waiting: int = count(32, most=100_000)  # beyond it they are refused
    term_seconds: float = seconds(2)  # from TERM to KILL


@frozen
class DrainConfig:
    """`[drain]`: how long each part of going down may take, and all of it."""

    grace_seconds: float = seconds(20)  # for running turns to end by themselves
    cleanup_seconds: float = seconds(5)  # to record a cancelled turn
    exec_seconds: float = seconds(25)  # for execs, from the moment at which the turns are recorded
    close_seconds: float = seconds(3)  # for clients to take what is left, and say goodbye
    stop_budget_seconds: float = seconds(60)  # at the end of which it ends, whatever happens


@frozen
class BreakerConfig:
    """`[breaker]`: when a model that cannot be reached stops new turns."""

    failures: int = count(5, least=1, most=1000)  # of turns that could not reach it, and no success between them
    window_seconds: float = seconds(60)  # within which they count
    probe_seconds: float = seconds(5)  # until it is probed; doubled each time that it fails, up to 60


def _path_fault(path: str) -> str | None:
    good = re.fullmatch(r"(?s)(/|~/)[^\0]+", path)
    return None if good else "must be a file's absolute path, or begin with ~/"


@frozen
class StoreConfig:
    """`[store]`: where the program keeps sessions, and how long. (A library's user gives `serve` a store.)"""

    type: Literal["sqlite", "memory"] = "sqlite"  # memory: until it exits, and what follows does not hold
    path: str | None = text(_path_fault, default=None)  # None: gateway-trio/gateway.db in $XDG_STATE_HOME
    keep_days: int = count(90, least=1, most=36_500)  # what has ended, and sessions that nobody uses
    keep_events: int = count(200_000, least=100, most=1 << 40)  # of one session, the newest

    def __attrs_post_init__(self) -> None:
        if self.type == "memory" and self.path is not None:
            raise ValueError('must have no path where its type is "memory"')


def _matches(pattern: str, message: str) -> Any:
    """Return an attrs validator for a text, or None, that matches the whole of a pattern."""

    def check(_instance: object, _attribute: object, value: str | None) -> None:
        if value is not None and re.fullmatch(pattern, value) is None:
            raise ValueError(message)

    return check


_NAME = "must be 1 to 64 letters, digits, or . _ @ - behind the first"


@frozen
class TokenConfig:
    """`[[auth.tokens]]`: one principal, and how its token is known: exactly one of `sha256` and `env`."""

    name: str = field(validator=_matches(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", _NAME))
    role: Role
    sha256: str | None = field(  # of the token's bytes; it is never repeated, whatever it is
        default=None, repr=False, validator=_matches(r"[0-9A-Fa-f]{64}", "must be 64 hexadecimal digits")
    )
    env: str | None = field(  # the name of the environment variable that holds the token
        default=None, validator=_matches(r"[A-Za-z_][A-Za-z0-9_]*", "must be the name of an environment variable")
    )

    def __attrs_post_init__(self) -> None:
        if (self.sha256 is None) == (self.env is None):
            both = "and not both" if self.env else "and has neither"
            raise ValueError(f"must have sha256 or env, {both}")


@frozen
class AuthConfig:
    """`[auth]`: who may connect, and how much each may have. Without tokens none of it holds."""

    tokens: tuple[TokenConfig, ...] = ()
    max_unauthenticated: int = count(64, least=1, most=100_000)  # connections to /acp that have not authenticated
    failures: int = count(10, least=1, most=100_000)  # bad tokens of one address within the next
    failure_window_seconds: float = seconds(60)
    prompts_per_minute: int = count(120, least=1, most=1_000_000)  # of one principal, as the next two
    max_sessions: int = count(1000, least=1, most=10_000)
    max_connections: int = count(100, least=1, most=1_000_000)


# --- the whole --------------------------------------------------------------------------------------

#: What every exec finds in its environment, and may show.
PUBLIC_NAMES = frozenset({"PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "SHELL", "TERM"})

_SHELLS_OWN = frozenset({"PWD", "OLDPWD", "PPID", "IFS", "SHLVL", "UID", "HOSTNAME", "GATEWAY_TRIO_EXEC_ID", "_"})
_VARIABLE = re.compile(r"\$\{?#?([A-Za-z_][A-Za-z0-9_]*)")

_SLACK_SECONDS = 3  # of the budget, for what has no limit of its own


def sum_faults(drain: DrainConfig, execs: ExecConfig) -> Iterator[Fault]:
    """Yield the fault of a budget in which the parts of a drain have no room."""
    parts = {
        "grace": drain.grace_seconds,
        "cleanup": drain.cleanup_seconds,
        "exec": drain.exec_seconds,
        "exec.term": execs.term_seconds,
        "close": drain.close_seconds,
        "slack": _SLACK_SECONDS,
    }
    needed = sum(parts.values())
    if round(needed - drain.stop_budget_seconds, 6) > 0:
        listed = " + ".join(f"{name} {value:g}" for name, value in parts.items())
        message = f"is {drain.stop_budget_seconds:g}, and must be at least {listed} = {needed:g}"
        yield Fault("drain.stop_budget_seconds", message)


def _frozen_copy(commands: Mapping[str, QuickCommand]) -> Mapping[str, QuickCommand]:
    return MappingProxyType({**commands})


@frozen
class Config:
    """All of it. `Config()` is a config with every default."""

    server: ServerConfig = field(factory=ServerConfig)
    agent: AgentConfig = field(factory=EchoAgentConfig)
    session: SessionConfig = field(factory=SessionConfig)
    exec: ExecConfig = field(factory=ExecConfig)
    drain: DrainConfig = field(factory=DrainConfig)
    breaker: BreakerConfig = field(factory=BreakerConfig)
    auth: AuthConfig = field(factory=AuthConfig)
    store: StoreConfig = field(factory=StoreConfig)
    quick_commands: Mapping[str, QuickCommand] = field(
        default=MappingProxyType({}), converter=_frozen_copy, hash=False
    )
    #: Of the quick commands, their aliases followed.
    catalog: Catalog = field(init=False, eq=False, repr=False)

    @catalog.default
    def _(self) -> Catalog:
        return Catalog.build(self.quick_commands.values())

    def __attrs_post_init__(self) -> None:
        if faults := tuple(sum_faults(self.drain, self.exec)):
            raise ConfigError(faults)

    @property
    def secret_names(self) -> tuple[str, ...]:
        """The names of environment variables whose values no exec may show.

        Secrets stand in the environment, and the config only names them. What an exec mentions, as `$NAME` in
        its command or as a key of its `env`, is taken for one, but for `PUBLIC_NAMES` and what a shell sets. So is
        what the agent's table names. What holds a token is one whatever its name.
        """
        names: set[str] = set(self.agent.secret_names)
        for command in self.quick_commands.values():
            if isinstance(command, ExecCommand):
                text = " ".join((command.command or "", *(command.argv or ())))
                names.update(_VARIABLE.findall(text), command.env)
        tokens = {token.env for token in self.auth.tokens if token.env}
        return tuple(sorted(names - PUBLIC_NAMES - _SHELLS_OWN | tokens))


class ConfigError(ValueError):
    """The config cannot be used. The text lists every fault, one a line."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults
