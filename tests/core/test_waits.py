import pytest

from gateway_trio.core.waits import Outcome, Seen, drain_is_over, exit_of_outcome, progress, restart_is_over


def seen(phase="draining", *reasons, turns=1, same=True, execs=0):
    return Seen(phase, reasons, turns, execs, same=same)


@pytest.mark.parametrize(
    ("what", "outcome"),
    [
        (seen("draining", "operator", turns=2), None),
        (seen("draining", "operator", turns=0, execs=3), Outcome.DRAINED),
        (seen("draining", "backend", "operator", turns=0), Outcome.DRAINED),
        (seen("open", turns=0), Outcome.TAKEN_BACK),
        (seen("open", turns=1), Outcome.TAKEN_BACK),
        (seen("draining", "backend", turns=0), Outcome.TAKEN_BACK),
        (seen("cancelling", "operator", "shutdown", turns=1), None),
        (seen("finishing", "operator", "shutdown", turns=0), Outcome.DRAINED),
        (seen("open", turns=0, same=False), Outcome.RESTARTED),
        (seen("draining", "operator", turns=0, same=False), Outcome.RESTARTED),
    ],
)
def test_a_drain_is_over_when_no_turn_runs_or_nothing_drains_for_it(what, outcome):
    assert drain_is_over(what) is outcome


@pytest.mark.parametrize(
    ("what", "outcome"),
    [
        (seen("draining", "restart"), None),
        (seen("closing", "restart", turns=0), None),
        (seen("closing", "restart", turns=0, same=False), None),
        (seen("draining", "backend", turns=0, same=False), None),
        (seen("open", turns=0, same=False), Outcome.BACK),
        (seen("open", turns=0), Outcome.TAKEN_BACK),
        (seen("draining", "backend"), Outcome.TAKEN_BACK),
        (seen("draining", "restart", "shutdown"), Outcome.SHUT_DOWN),
        (seen("closing", "shutdown"), Outcome.SHUT_DOWN),
    ],
)
def test_a_restart_is_over_when_another_process_is_open_or_none_will_be(what, outcome):
    assert restart_is_over(what) is outcome


def test_only_what_was_waited_for_exits_with_0():
    assert {outcome for outcome in Outcome if exit_of_outcome(outcome) == 0} == {Outcome.DRAINED, Outcome.BACK}
    assert exit_of_outcome(Outcome.TAKEN_BACK) == 1


def test_progress_is_one_line():
    assert progress(seen("draining", "operator"), None) == "draining (operator): 1 turn, 0 execs"
    assert progress(seen("open", turns=0, execs=1), None) == "open: 0 turns, 1 exec"
    line = progress(seen("draining", "shutdown", "operator", turns=2), 12.3)
    assert line == "draining (operator, shutdown): 2 turns, 0 execs, at most 12 s left"
    assert progress(seen("closing", "restart"), -3).endswith("at most 0 s left")
