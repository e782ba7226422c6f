"""Where a gateway stands: what may begin there, and when it ends at the latest."""

import math

import pytest
from attrs import evolve

from gateway_trio.core.phases import ADMITS, FINAL, Asked, Lane, Phase, Reason, State

ASKED = Asked("somebody", 0.0)


def state(phase, *reasons):
    """Return a state with three deadlines, in which these reasons stand."""
    return State(Phase(phase), dict.fromkeys(reasons, ASKED), 20.0, 40.0, 60.0)


@pytest.mark.parametrize(
    ("phase", "admitted"),
    [
        ("starting", (False, False, False, False, False)),
        ("open", (True, True, True, True, True)),
        ("draining", (False, False, True, True, True)),
        ("cancelling", (False, False, True, True, True)),
        ("finishing", (False, False, True, True, True)),
        ("closing", (False, False, False, False, False)),
        ("closed", (False, False, False, False, False)),
    ],
)
def test_what_may_begin_is_the_table_of_the_design(phase, admitted):
    lanes = (Lane.TURN, Lane.ALIAS, Lane.EXEC, Lane.CONTROL, Lane.CONNECT)
    assert tuple(map(state(phase).admits, lanes)) == admitted


def test_every_lane_and_phase_has_an_answer():
    assert set(ADMITS) == set(Phase)
    assert {lane.value for lane in Lane} == {"turn", "alias", "exec", "control", "connect"}


@pytest.mark.parametrize(
    ("phase", "deadline"),
    [
        ("starting", math.inf),
        ("open", math.inf),
        ("draining", 20.0),
        ("cancelling", 60.0),
        ("finishing", 40.0),
        ("closing", 60.0),
        ("closed", math.inf),
    ],
)
def test_each_phase_says_when_it_ends_at_the_latest(phase, deadline):
    assert state(phase, Reason.SHUTDOWN).phase_deadline == deadline


@pytest.mark.parametrize("reason", list(Reason))
def test_only_some_reasons_lead_to_the_end(reason):
    assert state("draining", reason).final == (reason in FINAL)


@pytest.mark.parametrize("phase", list(Phase))
def test_only_a_drain_can_be_taken_back_and_no_shutdown(phase):
    draining = phase is Phase.DRAINING
    assert state(phase, Reason.OPERATOR).revocable == draining
    assert state(phase, Reason.RESTART).revocable == draining
    assert not state(phase, Reason.OPERATOR, Reason.SHUTDOWN).revocable


def test_a_new_one_starts_without_reasons_and_deadlines():
    assert State().phase is Phase.STARTING
    assert State().reasons == frozenset()
    assert (State().turn_deadline, State().exec_deadline, State().ends) == (math.inf,) * 3
    assert evolve(State(), asked={Reason.BACKEND: ASKED}).reasons == {Reason.BACKEND}
