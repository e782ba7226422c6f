"""What is counted, and that nothing but what is in a table can be."""

import pytest

from gateway_trio.core.exec import Status
from gateway_trio.core.jsonrpc import CLOSES, FAULTS, Close
from gateway_trio.core.phases import Phase, Reason
from gateway_trio.core.session import OUTCOMES, TurnState
from gateway_trio.core.tally import BUCKETS, Histogram, Tally


def test_every_label_is_there_from_the_beginning():
    tally = Tally()
    assert set(tally.turns) == set(tally.turn_seconds) == {outcome.value for outcome in OUTCOMES}
    assert set(tally.execs) == {status.value for status in Status}
    assert set(tally.refusals) == set(FAULTS)
    assert set(tally.closes) == {*CLOSES, "protocol"}
    assert set(tally.drains) == {reason.value for reason in Reason}
    for table in (tally.turns, tally.execs, tally.refusals, tally.rejects, tally.closes, tally.drains):
        assert set(table.values()) == {0}


@pytest.mark.parametrize("outcome", sorted(OUTCOMES, key=lambda outcome: outcome.value))
def test_a_turn_counts_once_by_its_outcome(outcome):
    tally = Tally()
    tally.turn_ended(outcome, 0.3)
    tally.turn_ended(outcome, None)
    assert tally.turns[outcome.value] == sum(tally.turns.values()) == 2
    assert tally.turn_seconds[outcome.value].cumulative()[-1] == 1, "one that only waited took no time"
    assert tally.turn_seconds[outcome.value].sum == 0.3


@pytest.mark.parametrize("status", Status)
def test_an_exec_counts_by_its_status(status):
    tally = Tally()
    tally.exec_ended(status, 2.0)
    tally.exec_ended(status, None)
    assert tally.execs[status.value] == sum(tally.execs.values()) == 2
    assert (tally.exec_seconds.sum, tally.exec_seconds.cumulative()[-1]) == (2.0, 1)


def test_refusals_closes_and_drains_count_by_their_reason():
    tally = Tally()
    for reason in FAULTS:
        tally.refused(reason)
    for close in CLOSES.values():
        tally.closed(close)
    tally.closed(None)
    tally.drained({Reason.OPERATOR, Reason.SHUTDOWN})
    tally.drained(set())
    assert set(tally.refusals.values()) == set(tally.closes.values()) == {1}
    assert tally.drains == {"operator": 1, "backend": 0, "restart": 0, "shutdown": 1}


def test_a_status_code_that_is_not_in_the_table_is_another():
    tally = Tally()
    for status in (401, 401, 503, 418, 599, 500):
        tally.rejected(status)
    assert {code: count for code, count in tally.rejects.items() if count} == {"401": 2, "503": 1, "other": 3}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda tally: tally.refused("session-1234"),
        lambda tally: tally.turn_ended(TurnState.RUNNING, 1.0),
        lambda tally: tally.closed(Close(1000, "made up", come_back=False)),
    ],
)
def test_a_label_that_is_in_no_table_is_a_bug(wrong):
    tally = Tally()
    with pytest.raises(KeyError):
        wrong(tally)
    assert set(tally.refusals) == set(FAULTS)


def test_the_phases_share_all_of_the_time():
    tally = Tally()
    assert set(tally.phase_seconds(100.0).values()) == {0.0}, "nothing is known before the first phase"
    tally.entered(Phase.OPEN, 10.0)
    assert tally.phase_seconds(13.0)[Phase.OPEN] == 3.0
    tally.entered(Phase.DRAINING, 14.0)
    tally.entered(Phase.OPEN, 16.5)
    found = tally.phase_seconds(20.0)
    assert found[Phase.OPEN] == 4.0 + 3.5
    assert found[Phase.DRAINING] == 2.5
    assert sum(found.values()) == 10.0


def test_a_bucket_counts_what_took_at_most_that_long():
    histogram = Histogram()
    assert histogram.cumulative() == [0] * (len(BUCKETS) + 1)
    for seconds in (0.0, BUCKETS[0], BUCKETS[0] + 1e-9, BUCKETS[-1], BUCKETS[-1] + 1):
        histogram.add(seconds)
    counts = histogram.cumulative()
    assert counts[0] == 2
    assert counts[1] == 3
    assert counts[-2:] == [4, 5]
    assert histogram.sum == pytest.approx(2 * BUCKETS[0] + 2 * BUCKETS[-1] + 1)


def test_the_bounds_rise():
    assert list(BUCKETS) == sorted(set(BUCKETS))
