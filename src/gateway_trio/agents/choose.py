"""The agent that the config names: one row a type. Its module is imported only where it is named."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from importlib import import_module
from types import MappingProxyType

import trio

from gateway_trio.agent_tables import AgentConfig
from gateway_trio.agents import Agent, AgentUnusable

__all__ = ["chosen"]

#: By `type`: the module, the class in it, and the packages that its extra, which has the type's name, brings.
_AGENTS: Mapping[str, tuple[str, str, tuple[str, ...]]] = MappingProxyType(
    {
        "echo": ("gateway_trio.agents.echo", "EchoAgent", ()),
        "openai": ("gateway_trio.agents.openai", "OpenAIAgent", ("openai", "httpx2")),
    }
)


def _make(config: AgentConfig, environ: Mapping[str, str]) -> Agent:
    module, name, packages = _AGENTS[config.type]
    try:
        cls = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name not in packages:
            raise
        raise AgentUnusable(
            f'agent.type = "{config.type}" needs the package {error.name}, which is not installed:'
            f" pip install 'gateway-trio[{config.type}]'"
        ) from None
    agent: Agent = cls.from_config(config, environ)
    return agent


@contextlib.asynccontextmanager
async def chosen(
    config: AgentConfig, environ: Mapping[str, str], given: Agent | None, *, close_seconds: float
) -> AsyncIterator[Agent]:
    """Give the agent for the time of the block.

    Args:
        config: names one.
        environ: where it finds its key.
        given: stands in the place of what the config names, and is not closed here. None for none.
        close_seconds: what closing may take; it goes on when cancelled.

    Raises `AgentUnusable`.

    """
    if given is not None:
        yield given
        return
    agent = _make(config, environ)
    try:
        yield agent
    finally:
        if (aclose := getattr(agent, "aclose", None)) is not None:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + close_seconds):
                await aclose()
