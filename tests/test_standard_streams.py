"""Programs whose standard streams are closed or cannot be written: real processes, and real gateways."""

import subprocess
import sys

import pytest

from ctl import environment
from harness import PATIENCE, Program

CONFIG = """
[agent]
words_per_second = 1000

[quick_commands.up]
type = "exec"
command = "echo up for long"
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    with Program(tmp_path_factory.mktemp("gateway"), CONFIG) as program:
        with program.chat("talk") as chat:
            assert chat.ask("hello") == "hello"
        yield program


@pytest.fixture
def shell(program, tmp_path):
    """Return what runs a program with these redirections; the code, stdout and stderr."""

    def run(words, redirected, text=""):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {redirected}', "sh", sys.executable, "-m", "gateway_trio", *words.split()],
            env=environment(program, XDG_STATE_HOME=str(tmp_path)), input=text, capture_output=True, text=True,
            timeout=3 * PATIENCE,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize("redirected", [">/dev/full", ">&-", "<&- >&-"])
@pytest.mark.parametrize(
    "words",
    [
        "ctl status", "ctl status --json", "ctl exec up", "ctl undrain", "sessions list", "sessions show talk",
        "sessions export talk", "check",
    ],
)  # fmt: skip
def test_output_that_cannot_be_written_is_told(shell, words, redirected):
    code, out, err = shell(words, redirected)
    assert (code, out) == (73, "")
    assert err.startswith("gateway-trio: the output cannot be written: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("redirected", [">/dev/full", ">&-"])
def test_a_chat_whose_answers_cannot_be_written_ends(shell, redirected):
    code, out, err = shell("chat", redirected, "one\ntwo\n")
    assert (code, out) == (73, "")
    assert err.startswith("gateway-trio: the output cannot be written: ")
    assert err.count("\n") == 1


def test_where_nothing_can_be_told_the_code_says_it(shell):
    assert shell("ctl status", ">/dev/full 2>&1")[0] == 73
    assert shell("ctl status", ">/dev/full 2>&-")[0] == 73


def test_a_closed_stdin_is_an_empty_one(shell):
    assert shell("chat", "<&-") == (0, "", "")
    assert shell("ctl undrain", "<&-") == (0, "open\n", "")


def test_a_closed_stderr_hears_nothing(shell):
    code, out, _ = shell("ctl kill x1", "2>&-")
    assert (code, out) == (1, "")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("check /nowhere", 78), ("ctl status --url ws://127.0.0.1:1", 69), ("ctl exec nope", 2), ("ctl status", 0),
        ("ctl drain x --wait", 0), ("ctl undrain", 0), ("sessions export talk --output FILE", 0),
    ],
)  # fmt: skip
def test_a_full_stderr_changes_nothing(shell, tmp_path, words, code):
    assert shell(words.replace("FILE", str(tmp_path / "out.jsonl")), "2>/dev/full")[0] == code


@pytest.mark.parametrize(("words", "code"), [("ctl status", 141), ("sessions show talk", 141), ("chat", 1)])
def test_a_reader_that_has_left_is_no_fault(program, tmp_path, words, code):
    with subprocess.Popen(
        [sys.executable, "-m", "gateway_trio", *words.split()],
        env=environment(program, XDG_STATE_HOME=str(tmp_path)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        process.stdout.close()
        process.stdin.write(b"hello\n")
        process.stdin.close()
        assert process.wait(PATIENCE) == code
        assert process.stderr.read() == b""
