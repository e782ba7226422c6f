"""docs/client.md: its program runs, and its tables are those of the library."""

import re
from pathlib import Path

import pytest
import trio

from gateway_trio import client
from gateway_trio.core import updates
from harness import Program

TEXT = (Path(__file__).parents[1] / "docs" / "client.md").read_text(encoding="utf-8")


async def test_its_program_runs(tmp_path, capsys):
    (source,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict = {}
    exec(compile(source, "docs/client.md", "exec"), names)
    with Program(tmp_path) as program, trio.fail_after(60):
        await names["main"](f"ws://127.0.0.1:{program.port}")
    assert capsys.readouterr().out == "[queued]\n[running]\none two three[completed]\ncompleted\n"


@pytest.mark.parametrize("kind", [kind.__name__ for kind in updates.Update.__args__])
def test_every_update_is_named(kind):
    assert f"`{kind}`" in TEXT
    assert kind in client.__all__


@pytest.mark.parametrize(
    "error", [client.Unreachable, client.Unauthorized, client.Refused, client.Lost, client.Closed]
)
def test_every_error_is_named(error):
    assert f"── {error.__name__} " in TEXT
    assert issubclass(error, client.ClientError)
