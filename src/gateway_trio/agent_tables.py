"""The table `[agent]` of the config: one class for each type, as those in `tables`.

Another kind of agent is a class like `EchoAgentConfig`, with another `type`, a place in `AgentConfig` and
`AGENTS`, and one in the table of `agents.choose`.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from attrs import frozen

from gateway_trio.core.fields import count, number, seconds, text
from gateway_trio.core.hosts import host_fault

__all__ = ["AGENTS", "AgentConfig", "EchoAgentConfig", "OpenAIAgentConfig"]


@frozen
class EchoAgentConfig:
    """`[agent]` of type echo: streams the prompt back."""

    type: Literal["echo"] = "echo"
    words_per_second: float = number(50, least=0.001, most=1e6)

    #: The names of environment variables that hold a secret of this agent's.
    secret_names: ClassVar[tuple[str, ...]] = ()


def _names_a_place(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.port != 0 and host_fault(parts.hostname or "") is None
    except ValueError:  # a port that is too high, an address that is none
        return False


def _base_url_fault(url: str) -> str | None:
    good = re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#@]*)?", url)
    return (
        None
        if good and _names_a_place(url)
        else "must be an http or https URL with no user, query or fragment, as http://localhost:8080/v1"
    )


def _model_fault(model: str) -> str | None:
    return None if model.strip() else "must not be empty"


def _variable_fault(name: str) -> str | None:
    good = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
    return None if good else "must be the name of an environment variable; the key itself has no place in a file"


@frozen(kw_only=True)
class OpenAIAgentConfig:
    """`[agent]` of type openai: any endpoint for OpenAI's chat completions.

    Nothing is sent to an address that was not written down: `base_url` has no default.
    """

    type: Literal["openai"] = "openai"
    base_url: str = text(_base_url_fault)  # what `/chat/completions` and `/models` follow
    model: str = text(_model_fault)
    api_key_env: str | None = text(_variable_fault, default=None)  # the variable with the key; None: none is sent
    system_prompt: str = ""
    max_history_messages: int = count(100, most=100_000)  # earlier prompts and answers that the model is sent
    max_retries: int = count(2, most=100)  # after the first try, before the first token
    first_token_seconds: float = seconds(120)  # from the prompt, retries and all; a model may have to be loaded
    token_seconds: float = seconds(60)  # without anything from the model, once it has begun
    context_tokens: int = count(0, most=1 << 40)  # how many fit, for `usage_update`; 0: not known, none is sent

    @property
    def secret_names(self) -> tuple[str, ...]:
        """The names of environment variables that hold a secret of this agent's."""
        return () if self.api_key_env is None else (self.api_key_env,)

    def api_key(self, environ: Mapping[str, str]) -> str | None:
        """Return the key, None if none is to be sent.

        Raises ValueError, with half a sentence that holds no secret, for a key that is not there or that no HTTP
        header takes (RFC 9110, 5.5).
        """
        if self.api_key_env is None:
            return None
        key = environ.get(self.api_key_env, "")
        if not key:
            raise ValueError(f"the environment variable {self.api_key_env} is not set")
        if not re.fullmatch(r"[\x21-\x7e]+", key):
            raise ValueError(f"the value of {self.api_key_env} has blanks, line ends or other than ASCII in it")
        return key


AgentConfig = EchoAgentConfig | OpenAIAgentConfig

#: By `type`; the first is the default.
AGENTS: Mapping[str, type[AgentConfig]] = MappingProxyType({"echo": EchoAgentConfig, "openai": OpenAIAgentConfig})
