import pytest

from gateway_trio.core.exits import Exit, exit_of_exec, exit_of_refusal
from gateway_trio.core.jsonrpc import FAULTS


def test_the_numbers_are_a_promise_to_scripts():
    assert {exit_.name: exit_.value for exit_ in Exit} == {
        "DONE": 0, "REFUSED": 1, "USAGE": 2, "UNREACHABLE": 69, "FAULT": 70, "CANNOT_WRITE": 73, "LATER": 75, "NOT_ALLOWED": 77,
        "CONFIG": 78, "TIMED_OUT": 124, "ENDED": 125,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "exit_"),
    [
        ("forbidden", Exit.NOT_ALLOWED),
        ("auth_required", Exit.NOT_ALLOWED),
        ("usage", Exit.USAGE),
        ("invalid_params", Exit.USAGE),
        ("internal", Exit.FAULT),
        ("busy", Exit.LATER),
        ("draining", Exit.LATER),
        ("rate_limited", Exit.LATER),
        ("store_unavailable", Exit.LATER),
        ("unknown_exec", Exit.REFUSED),
        ("conflict", Exit.REFUSED),
        ("method_not_found", Exit.REFUSED),
    ],
)
def test_a_refusal_has_its_code(reason, exit_):
    assert exit_of_refusal(reason, retryable=FAULTS[reason][1]) is exit_


def test_a_reason_that_is_not_known_goes_by_whether_it_may_be_asked_again():
    assert exit_of_refusal("", retryable=True) is Exit.LATER
    assert exit_of_refusal("full moon", retryable=False) is Exit.REFUSED


@pytest.mark.parametrize(
    ("status", "exit_code", "signal", "code"),
    [
        ("exited", 0, None, 0),
        ("exited", 7, None, 7),
        ("exited", 69, None, 69),
        ("exited", None, None, 125),
        ("signalled", None, 9, 137),
        ("signalled", None, "KILL", 125),
        ("timeout", None, 15, 124),
        ("timeout", 0, None, 124),
        ("killed", None, 15, 125),
        ("cancelled", 0, None, 125),
        ("output_limit", None, 15, 125),
        ("deadline", None, 15, 125),
        ("spawn_failed", None, None, 125),
        ("unknown", None, None, 125),
        ("something new", 0, None, 125),
    ],
)
def test_a_command_hands_on_its_own_code_if_it_ended_by_itself(status, exit_code, signal, code):
    assert exit_of_exec(status, exit_code, signal) == code
