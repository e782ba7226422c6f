"""The breaker's table, as the design has it, and walks through it."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_trio.core.breaker import (
    LONGEST_WAIT,
    TRANSITIONS,
    Action,
    Limits,
    ProbeFailed,
    ProbeSucceeded,
    Reset,
    Stand,
    State,
    TurnFailed,
    TurnSucceeded,
    asked_wait,
    step,
)

LIMITS = Limits(failures=5, window_seconds=60, probe_seconds=5)
EVENTS = (TurnSucceeded, TurnFailed, ProbeSucceeded, ProbeFailed, Reset)


def after(*events, state=None, limits=LIMITS):
    """Return the state after events, and the actions of the last."""
    state, actions = state or State(), ()
    for event in events:
        state, actions = step(state, event, limits)
    return state, actions


def failures(*times):
    return [TurnFailed(at) for at in times]


OPEN, _ = after(*failures(0, 1, 2, 3, 4))
HALF_OPEN, _ = after(ProbeSucceeded(9), state=OPEN)


def test_each_stand_has_an_entry_for_each_event():
    assert {stand: set(entries) for stand, entries in TRANSITIONS.items()} == {key: set(EVENTS) for key in Stand}


def test_the_words_of_the_wire():
    assert [stand.value for stand in Stand] == ["closed", "open", "half-open"]


# --- closed ---------------------------------------------------------------------------------------------


def test_so_many_failures_open_it_and_a_probe_is_due():
    state, actions = after(*failures(0, 1, 2, 3))
    assert (state.stand, actions) == (Stand.CLOSED, ())
    state, actions = after(TurnFailed(4, "the last"), state=state)
    assert (state.stand, actions) == (Stand.OPEN, (Action.DRAIN,))
    assert (state.probe_at, state.wait, state.why) == (9, 5, "the last")
    assert state.failures == (), "nothing is counted while it is open"


def test_a_success_between_failures_counts():
    state, actions = after(*failures(0, 1, 2, 3), TurnSucceeded(3.5), *failures(4, 5, 6, 7))
    assert (state.stand, actions) == (Stand.CLOSED, ())
    assert after(TurnFailed(8), state=state)[0].stand is Stand.OPEN


@pytest.mark.parametrize(("last", "stand"), [(60, Stand.OPEN), (60.1, Stand.CLOSED)])
def test_failures_count_within_the_window(last, stand):
    assert after(*failures(0, 1, 2, 3, last))[0].stand is stand


def test_failures_that_are_too_old_are_forgotten():
    state, _ = after(*failures(*range(0, 10_000, 16)))
    assert state.stand is Stand.CLOSED
    assert len(state.failures) == 4


def test_one_failure_may_be_enough():
    assert after(TurnFailed(0), limits=Limits(1, 1, 1))[0].stand is Stand.OPEN


@pytest.mark.parametrize("event", [ProbeSucceeded(5), ProbeFailed(5), Reset(5)])
def test_closed_probes_and_resets_change_nothing(event):
    state, _ = after(*failures(0, 1, 2))
    assert after(event, state=state) == (state, ())


# --- open -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", [ProbeSucceeded(9), TurnSucceeded(9), Reset(9)])
def test_a_success_or_an_admin_lets_turns_be_tried(event):
    state, actions = after(event, state=OPEN)
    assert (state.stand, actions) == (Stand.HALF_OPEN, (Action.UNDRAIN,))
    assert state.probe_at == math.inf


def test_the_wait_for_a_probe_doubles_up_to_a_minute():
    state, waits = OPEN, [OPEN.wait]
    for _ in range(6):
        at = state.probe_at
        state, actions = after(ProbeFailed(at, "still"), state=state)
        assert actions == ()
        assert state.probe_at == at + state.wait
        waits.append(state.wait)
    assert waits == [5, 10, 20, 40, 60, 60, 60]
    assert (LONGEST_WAIT, state.why) == (60, "still")


def test_a_first_wait_longer_than_a_minute_stays():
    limits = Limits(1, 60, 100)
    state, _ = after(TurnFailed(0), ProbeFailed(100), ProbeFailed(200), limits=limits)
    assert (state.wait, state.probe_at) == (100, 300)


@pytest.mark.parametrize(("asked", "pause"), [(2, 2), (90, 90), (0, 1), (None, 5), (math.nan, 5), (1e9, 86_400)])
def test_what_the_backend_asks_for_goes_before_the_wait(asked, pause):
    state, _ = after(*failures(0, 1, 2, 3), TurnFailed(4, retry_after=asked))
    assert (state.probe_at, state.wait) == (4 + pause, 5)
    state, _ = after(ProbeFailed(10, retry_after=asked), state=OPEN)
    assert (state.probe_at, state.wait) == (10 + (10 if pause == 5 else pause), 10), "the backoff goes on below it"


def test_a_short_first_wait_is_not_made_longer_by_a_backend_that_asks_for_less():
    assert after(TurnFailed(0, retry_after=0), limits=Limits(1, 60, 0.25))[0].probe_at == 0.25


@pytest.mark.parametrize(("asked", "probe_at"), [(None, 9), (1, 9), (30, 35)])
def test_a_turn_that_fails_later_only_says_what_the_backend_asks_for(asked, probe_at):
    state, actions = after(TurnFailed(5, "later", asked), state=OPEN)
    assert (state.stand, state.probe_at, actions) == (Stand.OPEN, probe_at, ())
    assert (state.wait, state.why) == (OPEN.wait, OPEN.why)


# --- half-open ------------------------------------------------------------------------------------------


def test_half_open_a_turn_that_succeeds_closes_it_and_forgets():
    assert after(TurnSucceeded(10), state=HALF_OPEN) == (State(), ())


def test_half_open_the_next_failure_drains_at_once_with_the_wait_doubled():
    state, actions = after(TurnFailed(10, "again"), state=HALF_OPEN)
    assert (state.stand, actions) == (Stand.OPEN, (Action.DRAIN,))
    assert (state.wait, state.probe_at, state.why) == (10, 20, "again")


@pytest.mark.parametrize("event", [ProbeSucceeded(10), ProbeFailed(10), Reset(10)])
def test_half_open_late_probes_and_resets_change_nothing(event):
    assert after(event, state=HALF_OPEN) == (HALF_OPEN, ())


@pytest.mark.parametrize(
    ("seconds", "taken"),
    [(None, None), (0, 0), (2, 2), (2.5, 2.5), (-1, None), (math.inf, None), (math.nan, None), (1e300, 86_400)],
)
def test_what_a_backend_may_ask_for(seconds, taken):
    assert asked_wait(seconds) == taken


# --- walks ----------------------------------------------------------------------------------------------

asked = st.none() | st.floats(allow_nan=True, allow_infinity=True)
happening = st.one_of(
    st.tuples(st.sampled_from([TurnSucceeded, ProbeSucceeded, Reset]), st.none()),
    st.tuples(st.sampled_from([TurnFailed, ProbeFailed]), asked),
)


@given(st.lists(st.tuples(happening, st.floats(0, 100)), max_size=60), st.integers(1, 6))
def test_any_walk(walk, most):
    limits = Limits(most, 60, 5)
    state, at, told, in_a_row = State(), 0.0, [], 0
    for (kind, retry_after), pause in walk:
        at += pause
        event = kind(at) if retry_after is None else kind(at, "why", retry_after)
        before = state
        state, actions = step(state, event, limits)
        told += actions
        # One action at each change to or from open, and none else.
        assert len(actions) == ((state.stand is Stand.OPEN) != (before.stand is Stand.OPEN))
        assert (state.probe_at < math.inf) == (state.stand is Stand.OPEN)
        assert len(state.failures) < most
        if before.stand is Stand.CLOSED:
            in_a_row = in_a_row + 1 if kind is TurnFailed else 0 if kind is TurnSucceeded else in_a_row
            assert state.stand is Stand.CLOSED or in_a_row >= most
        else:
            in_a_row = 0
        if state.stand is Stand.OPEN:
            assert state.probe_at >= at or before.stand is Stand.OPEN
            assert 5 <= state.wait <= 60
    assert all(first is not second for first, second in itertools.pairwise(told)), "they alternate"
    assert told[:1] in ([], [Action.DRAIN])
