"""Each module of core/ is branch-covered by its own test file alone, walks cut short."""

import json
import os
import subprocess
import sys
from pathlib import Path

import coverage
import pytest

import gateway_trio.core

TESTS = Path(__file__).parent
CORE = Path(gateway_trio.core.__file__).parent
MODULES = sorted(path.stem for path in CORE.glob("*.py") if path.stem != "__init__")

#: Modules whose test file has another name, each with its name and the reason.
ELSEWHERE: dict[str, str] = {}


def test_every_module_has_its_test_file():
    assert [name for name in MODULES if not (TESTS / f"test_{name}.py").exists() and name not in ELSEWHERE] == []
    assert [name for name in ELSEWHERE if name not in MODULES] == [], "there is no such module any more"


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ELSEWHERE])
def test_its_own_tests_take_every_branch(name, tmp_path):
    module, data = CORE / f"{name}.py", tmp_path / "data"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("COV_", "COVERAGE_"))}
    measure = ["-m", "coverage", "run", "--rcfile=", "--branch", f"--include={module}", f"--data-file={data}"]
    tests = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=brief"]
    run = subprocess.run(
        [sys.executable, *measure, *tests, str(TESTS / f"test_{name}.py")],
        env=env,
        cwd=TESTS.parents[1],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout + run.stderr

    found = coverage.Coverage(data_file=str(data), config_file=False)
    found.load()
    found.json_report(outfile=str(tmp_path / "json"))
    (left,) = json.loads((tmp_path / "json").read_text())["files"].values()
    assert (left["missing_lines"], left["missing_branches"]) == ([], [])
    assert "pragma" not in module.read_text(encoding="utf-8"), "nothing is left out by a comment"
