"""The agent that says what it was told: which pieces it says, and that no text holds it up."""

import re
import subprocess
import sys
from types import SimpleNamespace

import trio
from hypothesis import given
from hypothesis import strategies as st

from gateway_trio.agents.echo import EchoAgent


def echo(text):
    """Return the pieces that the agent says."""
    said = []

    async def emit(delta):
        said.append(delta.text)

    async def run():
        with trio.fail_after(60):
            await EchoAgent(words_per_second=1e9).run(SimpleNamespace(text=text), emit)

    trio.run(run)
    return said


@given(st.text(alphabet="ab \n\u00a0", max_size=20))
def test_it_says_each_word_with_what_stands_before_it(text):
    said = echo(text)
    if text.strip():
        assert said == re.findall(r"\s*\S+", text)
        assert "".join(said) == text.rstrip()
    else:
        assert said == [text]


def test_a_megabyte_without_a_word_is_said_like_any_other():
    """In a process of its own, as nothing could end it here: read anew from each blank it would take hours."""
    program = (
        "from gateway_trio.agents.echo import _WORD; "
        r"print(_WORD.findall('\n' * 1_000_000), len(_WORD.findall('a' + ' ' * 1_000_000 + 'b' + '\t' * 1_000_000)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "[] 2\n"
