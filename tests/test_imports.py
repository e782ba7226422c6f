"""Who may import what: trio-websocket stands behind few modules, and serving loads nothing of the clients."""

import ast
import subprocess
import sys
from pathlib import Path

import gateway_trio

SOURCE = Path(gateway_trio.__file__).parent

#: The server's two, the client's one, and the clients of tests.
WEBSOCKET_USERS = {"front_door.py", "connection.py", "client/link.py", "testing/clients.py", "testing/lab.py"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def test_trio_websocket_stands_behind_few_modules():
    users = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if any(name.split(".")[0] == "trio_websocket" for name in imported(path))
    }
    assert users == WEBSOCKET_USERS


def test_asking_loads_nothing_of_what_serves():
    """`gateway-trio ctl` is started by people and in loops of scripts."""
    look = (
        "import sys; from gateway_trio.cli import app; import gateway_trio.ctl.app, gateway_trio.ctl.verbs;"
        "print([m for m in sys.modules if m in ('gateway_trio.server', 'gateway_trio.process', 'gateway_trio.gateway')])"
    )
    run = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"


def test_serving_loads_nothing_of_the_clients():
    """The program's command line, and all that it serves with."""
    look = (
        "import sys; from gateway_trio.cli import app; import gateway_trio.process;"
        "print([m for m in sys.modules if m.startswith(('prompt_toolkit', 'rich.live', 'gateway_trio.client', 'gateway_trio.ctl'))])"
    )
    run = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"
