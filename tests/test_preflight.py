"""Whether a gateway would come up, and a program that says so."""

from __future__ import annotations

import os
import socket
import sys

import pytest
import trio

from gateway_trio.config import AuthConfig, Config, OpenAIAgentConfig, ServerConfig, TokenConfig
from gateway_trio.core.kinds import Role
from gateway_trio.preflight import faults, program_fault
from gateway_trio.server import serve
from test_process import cli

TOKENS = AuthConfig((TokenConfig("root", Role.ADMIN, sha256="0" * 64),))


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(server=ServerConfig("localhost", 0)),
        Config(server=ServerConfig("0.0.0.0"), auth=TOKENS),
        Config(agent=OpenAIAgentConfig(base_url="http://127.0.0.1:9/v1", model="m")),
    ],
)
async def test_what_would_come_up(config):
    with trio.fail_after(60):
        assert await faults(config, {}) == []


async def test_all_faults_at_once():
    agent = OpenAIAgentConfig(base_url="http://127.0.0.1:9/v1", model="m", api_key_env="NO_SUCH_KEY")
    with trio.fail_after(60):
        key, host = await faults(Config(server=ServerConfig("0.0.0.0"), agent=agent), {})
    assert "NO_SUCH_KEY" in key
    assert host == "server.host: 0.0.0.0 can be reached by others, and there are no tokens"


async def test_a_name_that_is_none():
    with trio.fail_after(60):
        (fault,) = await faults(Config(server=ServerConfig("256.256.256.256")), {})
    assert fault.startswith("server.host: '256.256.256.256' is no address")


async def test_a_name_that_the_resolver_cannot_write():
    host = "\N{GRINNING FACE}.invalid"
    with trio.fail_after(60):
        (fault,) = await faults(Config(server=ServerConfig(host=host)), {})
        assert fault.startswith("server.host: ")
        with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="no host's name"), flatten_subgroups=True):
            await serve(Config(server=ServerConfig(host=host)))


async def test_nothing_listens():
    with socket.create_server(("127.0.0.1", 0)) as taken, trio.fail_after(60):
        port = taken.getsockname()[1]
        assert await faults(Config(server=ServerConfig("127.0.0.1", port)), {}) == []


def program(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("print('fine')", None),
        (
            "import sys; print('the value secret-secret is bad'); sys.exit(78)",
            "exit code 78: the value *** is bad",
        ),
        ("import sys; sys.exit(3)", "exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
        ("import os, sys; sys.exit('NOTIFY_SOCKET' in os.environ or os.environ['KEPT'] != 'kept')", None),
    ],
)
async def test_what_a_program_says_of_itself(code, why, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    monkeypatch.setenv("KEPT", "kept")
    with trio.fail_after(60):
        assert await program_fault(program(code), ("secret-secret",)) == why


async def test_one_that_says_too_much_or_never_ends_or_is_not_there():
    with trio.fail_after(60):
        much = await program_fault(program("print('x' * 30_000); raise SystemExit(1)"), ())
        assert much == f"exit code 1: {'x' * 2000}"
        assert await program_fault(program("while True: print('x' * 1000)"), ()) is not None
        slow = await program_fault(program("import time; print('hm', flush=True); time.sleep(3141)"), (), 2.0)
        assert slow in ("no end in 2 s: hm", "no end in 2 s")  # before its first word, on a slow machine
        assert "program not found" in await program_fault(("/no/such/program",), ())


def test_check_says_it_too(tmp_path):
    config = tmp_path / "gateway.toml"
    config.write_text('[server]\nhost = "0.0.0.0"\n')
    config.chmod(0o600)
    refused = cli("check", config)
    assert (refused.returncode, refused.stdout) == (78, "")
    assert refused.stderr == "server.host: 0.0.0.0 can be reached by others, and there are no tokens\n"
    assert cli("check", cwd=os.sep).stdout == "every default: good, 0 exec and 0 alias commands\n"
