"""Case 23: output without end, or just too much: memory is bounded, head and tail are kept, the cut is stated."""

import re

import pytest
from processes import marked, most_memory

from harness import Program

CONFIG = """
[quick_commands.yes]
type = "exec"
command = "yes"
timeout_seconds = 60

[quick_commands.gigabyte]
type = "exec"
command = "head -c 1073741824 /dev/zero | tr '\\\\000' x"
timeout_seconds = 60

[quick_commands.numbers]
type = "exec"
command = "seq 1 60000"

[quick_commands.fits]
type = "exec"
command = "seq 1 5000"
"""

KEPT = 64 * 1024  # characters: half of it at the head, half at the tail


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    with Program(tmp_path_factory.mktemp("gateway"), CONFIG) as program:
        yield program


def run(program, name):
    """Run it in a session and by request; return facts and text of both."""
    with program.acp() as client:
        answer = client.prompt(client.new_session(), f"/{name}")
        facts = answer["_meta"]["gateway-trio"]
        once = client.call("_gateway-trio/exec", {"name": name})
        assert marked(facts["id"]) == marked(once["id"]) == []
        return (facts, client.text()), (once, once["output"])


@pytest.mark.parametrize("name", ["yes", "gigabyte"])
def test_case_23_without_end(program, name):
    before = most_memory(program.pid)
    both = (_, said), _ = run(program, name)
    for facts, text in both:
        assert facts["status"] == "output_limit"
        assert 16 * 2**20 < facts["bytes"] < 32 * 2**20
        assert facts["cut"] > 15 * 2**20
        assert len(text) < KEPT + 1000
        assert text[:4] == ("y\ny\n" if name == "yes" else "xxxx")
        assert re.search(rf"\b{facts['cut']}\b", text), text[32000:34000]
    assert "too much output" in said[-200:]
    assert most_memory(program.pid) - before < 64 * 2**20


def test_case_23_three_hundred_kilobytes(program):
    whole = "".join(f"{number}\n" for number in range(1, 60001))
    for facts, text in run(program, "numbers"):
        assert (facts["status"], facts["exitCode"], facts["bytes"]) == ("exited", 0, len(whole))
        cut = facts["cut"]
        assert len(whole) - KEPT - 10 <= cut <= len(whole) - KEPT + 10
        head, line, tail = re.fullmatch(rf"(?s)(.*?)(\n?[^\n]*\b{cut}\b[^\n]*\n)(.*)", text).groups()
        assert whole.startswith(head)
        assert whole.endswith(tail)
        assert len(head) + len(tail) + cut == pytest.approx(len(whole), abs=2)
        assert line.strip()


def test_case_23_what_fits_is_whole(program):
    for facts, text in run(program, "fits"):
        assert facts["cut"] == 0
        assert text == "".join(f"{number}\n" for number in range(1, 5001))
