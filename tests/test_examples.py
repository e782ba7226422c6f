"""The programs of examples/, each run as a process of its own, spoken to, and ended by Ctrl-C."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

from harness import PATIENCE

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_every_program_is_tried():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {"embed", "careful"}


@pytest.mark.parametrize(
    ("name", "said", "answers"),
    [
        ("embed", ["hello you"], ["HELLO YOU "]),
        (
            "careful",
            ["delete x", "/allow"],
            ["· delete x", "· the agent asks", "Allowed p5", "· p5 was", "Done: delete x"],
        ),
    ],
)
def test_an_example(name, said, answers):
    code = f"import trio, {name}; trio.run({name}.main, 0)"
    program = subprocess.Popen([sys.executable, "-c", code], cwd=EXAMPLES, stdout=subprocess.PIPE, text=True)
    try:
        port = re.fullmatch(r"listening on \('127\.0\.0\.1', (\d+)\)\n", program.stdout.readline())[1]
        with connect(f"ws://127.0.0.1:{port}/chat", open_timeout=PATIENCE, close_timeout=PATIENCE) as chat:
            expected = iter(answers)
            for text in said:
                chat.send(text)
                until = "asks" if text != said[-1] else answers[-1]
                frame = ""
                while until not in frame:
                    frame = chat.recv(PATIENCE)
                    assert frame.startswith(next(expected))
        assert list(expected) == []
        program.send_signal(signal.SIGINT)
        assert program.wait(PATIENCE) == 0
    finally:
        program.kill()
        program.wait(PATIENCE)
        program.stdout.close()
