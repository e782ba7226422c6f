"""The stock TypeScript ACP SDK, as npm has it, against real gateways: `make test-sdk`, not `make test`.

Its name is none that pytest collects by itself, because it installs from npm. Where node or npm is missing it is
skipped with the reason. What is checked is in client.mjs.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from harness import Program

HERE = Path(__file__).parent
ASKING = HERE.parent / "cases" / "programs" / "asking.py"
TOKEN = "a-token-of-the-sdk-0123456789"

CONFIG = """
[agent]
words_per_second = 40

[[auth.tokens]]
name = "ann"
role = "admin"
env = "SDK_TOKEN"

[quick_commands.hello]
type = "exec"
command = 'printf "hello %s" "$1"'
args = "text"
"""


def run(*words: str, **env: str) -> str:
    """Run a program in this folder and return what it says; fail with that if it fails."""
    done = subprocess.run(
        words,
        cwd=HERE,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def node():
    for name in ("node", "npm"):
        if shutil.which(name) is None:
            pytest.skip(f"there is no {name} here; the TypeScript SDK was not tried")
    major = int(run("node", "--version").lstrip("v").split(".")[0])
    if major < 18:
        pytest.skip(f"node {major} is too old for the TypeScript SDK, which takes 18; it was not tried")
    run("npm", "install", "--no-package-lock", "--ignore-scripts")
    return "node"


def test_the_typescript_sdk(node, tmp_path):
    (tmp_path / "echo").mkdir()
    (tmp_path / "asking").mkdir()
    env = {"SDK_TOKEN": TOKEN}
    with (
        Program(tmp_path / "echo", CONFIG, env=env) as echo,
        Program(tmp_path / "asking", CONFIG, env=env, script=ASKING) as asking,
    ):
        urls = {f"{name}_URL": f"ws://127.0.0.1:{p.port}/acp" for name, p in (("ECHO", echo), ("ASKING", asking))}
        said = run(node, "client.mjs", TOKEN=TOKEN, **urls)
    print(said)
    assert "# fail 0" in said
    assert TOKEN not in echo.text + asking.text
