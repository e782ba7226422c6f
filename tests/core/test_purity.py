"""core/ is pure: no trio, clock, file, socket, chance or log, and nothing of the package but itself."""

import ast
from pathlib import Path

import pytest

import gateway_trio.core

CORE = Path(gateway_trio.core.__file__).parent
MODULES = sorted(CORE.glob("**/*.py"))

#: All that core/ may import: the language's own tools for values, and what makes classes of trees.
PURE = {
    "__future__",
    "attrs",
    "bisect",
    "cattrs",
    "codecs",
    "collections",
    "difflib",
    "enum",
    "errno",
    "heapq",
    "itertools",
    "json",
    "math",
    "re",
    "shlex",
    "types",
    "typing",
}
#: What needs no import and does something all the same.
IMPURE_CALLS = {"open", "print", "input", "exec", "eval", "__import__", "breakpoint", "compile"}


def imports(tree):
    """Yield the full name of every module that is imported, anywhere in the module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports could leave core unseen"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def impure(source):
    tree = ast.parse(source)
    for name in imports(tree):
        inside = name.startswith("gateway_trio.core.")
        if not inside and name.split(".")[0] not in PURE:
            yield name
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            yield f"{node.func.id}()"
        if isinstance(node, ast.AsyncFunctionDef):
            yield f"async def {node.name}"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_module_of_core_imports_nothing_that_acts(module):
    assert list(impure(module.read_text(encoding="utf-8"))) == []


def test_all_modules_are_looked_at():
    assert {"lifecycle", "events", "session", "jsonrpc", "acp", "commands"} <= {path.stem for path in MODULES}


@pytest.mark.parametrize(
    "source",
    [
        *(
            f"import {name}"
            for name in (
                "trio", "trio.socket", "socket", "time", "os", "os.path", "random", "secrets", "logging", "structlog",
                "asyncio", "subprocess", "threading", "pathlib", "datetime", "signal", "sys", "json, time",
            )
        ),
        "from os import path",
        "from gateway_trio import config",
        "from gateway_trio.store import Store",
        "import gateway_trio.server",
        "def f():\n    import time",
        "if TYPE_CHECKING:\n    from gateway_trio.auth import Principal",
        "open('x')",
        "print('x')",
        "async def f(): ...",
    ],
)  # fmt: skip
def test_the_look_finds_what_acts(source):
    assert list(impure(source)) != []


def test_the_look_lets_pass_what_is_pure():
    assert (
        list(impure("import json\nfrom gateway_trio.core.text import Text\nfrom collections.abc import Mapping"))
        == []
    )
