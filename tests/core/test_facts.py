import pytest

from gateway_trio.core.facts import closing_line


def facts(status="exited", **more):
    return {"status": status, "exitCode": 0, "signal": None, "seconds": 1.25, "background": 0, **more}


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (facts(exitCode=7), "[exit code 7 after 1.2 s]"),
        (facts("signalled", signal="SIGSEGV"), "[ended by signal SIGSEGV after 1.2 s]"),
        (facts("timeout"), "[timed out after 1.2 s, and was ended]"),
        (facts("killed"), "[killed after 1.2 s]"),
        (facts("cancelled"), "[cancelled after 1.2 s]"),
        (facts("output_limit"), "[too much output after 1.2 s, and was ended]"),
        (facts("deadline"), "[ended after 1.2 s, because the gateway goes down]"),
        (facts("spawn_failed", error="program not found: 'x'"), "[could not be started: program not found: 'x']"),
        (facts("unknown"), "[outcome unknown]"),
        (facts(background=1), "[exit code 0 after 1.2 s; 1 process left running]"),
        (facts(background=3), "[exit code 0 after 1.2 s; 3 processes left running]"),
        (
            facts(background=1, backgroundEnded=True),
            "[exit code 0 after 1.2 s; 1 process it had left running was ended]",
        ),
        (
            facts(background=2, backgroundEnded=True),
            "[exit code 0 after 1.2 s; 2 processes it had left running were ended]",
        ),
    ],
)
@pytest.mark.parametrize("silent", [True, False])
def test_every_end_that_is_not_plain_success_is_said(said, line, silent):
    assert closing_line(said, silent=silent) == line


def test_plain_success_says_nothing_unless_there_was_no_output():
    assert closing_line(facts(), silent=False) is None
    assert closing_line(facts(), silent=True) == "[no output]"
