"""Run the Autobahn test suite's fuzzing client against our WebSocket stack: `make test-autobahn`.

The suite is a program for Python 2.7, installed from PyPI into a directory of its own. Without such a Python the run
is skipped, and says so. Exits with 1 if a case failed or a section did not run; the reports stay in the directory.

    python run.py DIRECTORY
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from report import SECTIONS, counts, faults

SUITE = "autobahntestsuite==25.10.1"
NAME = "gateway-trio"
SECONDS = 900  # for the whole suite, which takes half a minute here

_IS_PYTHON_2 = "import sys; sys.exit(sys.version_info[:2] != (2, 7))"
_WSTEST = "from autobahntestsuite.wstest import run; run()"


def python2() -> str | None:
    """Return a Python 2.7 that runs: `$PYTHON2`, or one on the path, or pyenv's."""
    named = [os.environ.get("PYTHON2"), *map(shutil.which, ("python2.7", "pypy2", "pypy"))]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for program in [*filter(None, named), *map(str, sorted(pyenv.glob("versions/2.7*/bin/python2.7")))]:
        if subprocess.run([program, "-c", _IS_PYTHON_2], check=False, stderr=subprocess.DEVNULL).returncode == 0:
            return program
    return None


def install(python: str, directory: Path) -> dict[str, str]:
    """Install the suite for this Python; return the environment in which it is found."""
    env = {**os.environ, "PYTHONUSERBASE": str(directory / "suite"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    env.pop("PYTHONPATH", None)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--user", SUITE], check=True, env=env)
    return env


def fuzz(python: str, env: dict[str, str], directory: Path, port: int) -> dict[str, dict[str, object]]:
    """Run all cases; return what was reported of each."""
    reports = directory / "reports"
    shutil.rmtree(reports, ignore_errors=True)
    spec = {
        "outdir": str(reports),
        "servers": [{"agent": NAME, "url": f"ws://127.0.0.1:{port}"}],
        "cases": [f"{section}.*" for section in SECTIONS],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    (directory / "spec.json").write_text(json.dumps(spec))
    subprocess.run(
        [python, "-c", _WSTEST, "-m", "fuzzingclient", "-s", str(directory / "spec.json")],
        check=True, env=env, timeout=SECONDS,
    )  # fmt: skip
    found: dict[str, dict[str, object]] = json.loads((reports / "index.json").read_text())[NAME]
    return found


def main(directory: Path) -> int:
    python = python2()
    if python is None:
        print("skipped: the Autobahn test suite needs a Python 2.7 (set PYTHON2), and there is none here")
        return 0
    directory.mkdir(parents=True, exist_ok=True)
    env = install(python, directory)
    server = [sys.executable, str(Path(__file__).with_name("echo_gateway.py"))]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as echo:
        try:
            assert echo.stdout is not None
            port = int(echo.stdout.readline().split()[1])
            cases = fuzz(python, env, directory, port)
            lives = echo.poll() is None
        finally:
            echo.kill()
    wrong = [*faults(cases), *([] if lives else ["the server ended"])]
    print(f"\n{len(cases)} cases: {counts(cases)}. Reports: {directory / 'reports'}")
    print("\n".join(wrong) or "No case failed.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
