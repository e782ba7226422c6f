"""What `make test-autobahn` is made of: how its report is read, and the program that it talks to."""

import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import connect

AUTOBAHN = Path(__file__).parent / "autobahn"
sys.path.insert(0, str(AUTOBAHN))

from report import SECTIONS, counts, faults  # noqa: E402


def case(behavior="OK", close="OK"):
    return {"behavior": behavior, "behaviorClose": close, "duration": 1, "remoteCloseCode": 1000}


WHOLE = {f"{section}.1.1": case() for section in SECTIONS}


def test_a_run_without_a_failure_passes():
    assert list(faults(WHOLE)) == []
    assert list(faults(WHOLE | {"3.2": case("NON-STRICT"), "7.1.6": case("INFORMATIONAL", "INFORMATIONAL")})) == []


@pytest.mark.parametrize("what", ["FAILED", "WRONG CODE", "UNCLEAN", "FAILED BY CLIENT", "UNIMPLEMENTED", None])
def test_anything_else_is_a_failure(what):
    assert list(faults(WHOLE | {"6.4.1": case(what)})) == [f"case 6.4.1: behavior {what}"]
    assert list(faults(WHOLE | {"6.4.1": case(close=what)})) == [f"case 6.4.1: behaviorClose {what}"]


def test_a_section_that_did_not_run_is_one_too():
    assert len(list(faults({}))) == len(SECTIONS)
    rest = {number: found for number, found in WHOLE.items() if not number.startswith("10.")}
    assert list(faults(rest)) == ["section 10: no case ran"], "10 is not 1"


def test_cases_are_counted():
    assert counts(WHOLE | {"1.1.1": case("NON-STRICT")}) == {"NON-STRICT": 1, "OK": len(SECTIONS) - 1}


def test_the_echo_says_text_and_bytes_again():
    program = [sys.executable, AUTOBAHN / "echo_gateway.py"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as echo:
        try:
            port = int(echo.stdout.readline().split()[1])
            with connect(f"ws://127.0.0.1:{port}", max_size=None) as client:
                for message in ("", "häll", b"", b"\xff\0", "x" * 70_000, bytes(2**20)):
                    client.send(message)
                    assert client.recv(30) == message
        finally:
            echo.kill()
