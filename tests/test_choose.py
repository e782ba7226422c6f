"""The agent that the config names, and what of it is imported, closed, and missing."""

import os
import subprocess
import sys

import pytest
import trio

from gateway_trio.agent_tables import AGENTS, EchoAgentConfig, OpenAIAgentConfig
from gateway_trio.agents import AgentUnusable
from gateway_trio.agents.choose import chosen
from gateway_trio.agents.echo import EchoAgent
from gateway_trio.agents.openai import OpenAIAgent
from harness import Program
from model_server import ModelServer

MODEL = OpenAIAgentConfig(base_url="http://127.0.0.1:9/v1", model="m")


@pytest.fixture
def without_the_extra(tmp_path):
    """An environment in which the packages of the extra are not there."""
    folder = tmp_path / "path"
    folder.mkdir()
    for name in ("openai", "httpx2"):
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}', name='{name}')\n")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


@pytest.mark.parametrize(("config", "cls"), [(EchoAgentConfig(), EchoAgent), (MODEL, OpenAIAgent)])
async def test_each_type_has_its_agent(config, cls):
    async with chosen(config, {}, None, close_seconds=5) as agent:
        assert isinstance(agent, cls)


async def test_every_type_of_the_config_has_a_row():
    made = {"echo": EchoAgentConfig(), "openai": MODEL}
    assert set(made) == set(AGENTS)
    for config in made.values():
        async with chosen(config, {}, None, close_seconds=5):
            pass


class Closing:
    def __init__(self):
        self.closed = 0

    async def aclose(self):
        self.closed += 1


async def test_a_given_agent_stands_in_its_place_and_is_not_closed():
    given = Closing()
    async with chosen(MODEL, {}, given, close_seconds=5) as agent:
        assert agent is given
    assert given.closed == 0


async def test_a_made_one_is_closed_although_cancelled():
    with ModelServer() as model, trio.CancelScope() as scope:
        config = OpenAIAgentConfig(base_url=model.url, model="m")
        async with chosen(config, {}, None, close_seconds=5) as agent:
            await agent.probe()
            scope.cancel()
    assert agent._client.is_closed()


async def test_a_missing_key_makes_it_unusable():
    config = OpenAIAgentConfig(base_url="http://127.0.0.1:9/v1", model="m", api_key_env="MODEL_KEY")
    with pytest.raises(AgentUnusable, match="MODEL_KEY"):
        async with chosen(config, {}, None, close_seconds=5):
            pass


def test_the_program_says_which_extra_is_missing(tmp_path, without_the_extra):
    config = '[agent]\ntype = "openai"\nbase_url = "http://127.0.0.1:9/v1"\nmodel = "m"\n'
    with Program(tmp_path, config, env=without_the_extra, ready=False) as program:
        assert program.wait() == 78
        assert "pip install 'gateway-trio[openai]'" in program.text
        assert "Traceback" not in program.text


def test_the_program_needs_no_extra_for_the_echo(tmp_path, without_the_extra):
    with Program(tmp_path, env=without_the_extra) as program, program.chat() as client:
        assert client.ask("hi") == "hi"


def test_the_sdk_is_loaded_by_its_agent_alone():
    names = "gateway_trio.process, gateway_trio.testing, gateway_trio.agents.choose"
    code = f"import sys, {names}\nprint('openai' in sys.modules)\nimport gateway_trio.agents.openai\nprint('openai' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.split() == ["False", "True"], run.stderr
