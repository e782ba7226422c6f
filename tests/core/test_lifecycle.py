"""The lifecycle's tables, as the design has them, and walks through them."""

import math

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from gateway_trio.core.lifecycle import (
    TRANSITIONS,
    Action,
    Cut,
    Drain,
    ExecsDone,
    ImpossibleTransition,
    Opened,
    SocketsClosed,
    TurnsDone,
    TurnsRecorded,
    Undrain,
    step,
)
from gateway_trio.core.phases import FINAL, Asked, Phase, Reason, State

ORDER = list(Phase)
ONCE = (Action.SETTLE_QUEUED, Action.CANCEL_TURNS, Action.END_EXECS, Action.CLOSE_SOCKETS)
EVENTS = (Opened, Drain, Undrain, TurnsDone, TurnsRecorded, ExecsDone, SocketsClosed, Cut)


def drain(reason, *, at=0.0, grace=20.0, budget=60.0, execs=None, by="somebody"):
    return Drain(reason, Asked(by, at), at, grace, budget, execs)


def after(*events, state=None):
    """Return the state after events, and the actions of the last."""
    state, actions = state or State(), ()
    for event in events:
        state, actions = step(state, event)
    return state, actions


OPEN, _ = after(Opened())
DOWN, _ = after(drain(Reason.SHUTDOWN), state=OPEN)
TO = {
    Phase.STARTING: State(),
    Phase.OPEN: OPEN,
    Phase.DRAINING: DOWN,
    Phase.CANCELLING: after(TurnsDone(), state=DOWN)[0],
    Phase.FINISHING: after(TurnsDone(), TurnsRecorded(40.0), state=DOWN)[0],
    Phase.CLOSING: after(TurnsDone(), TurnsRecorded(40.0), ExecsDone(), state=DOWN)[0],
    Phase.CLOSED: after(TurnsDone(), TurnsRecorded(40.0), ExecsDone(), SocketsClosed(), state=DOWN)[0],
}


def test_the_way_down_is_the_order_of_the_phases():
    assert {phase: state.phase for phase, state in TO.items()} == {phase: phase for phase in Phase}


def test_there_is_a_rule_for_each_phase():
    assert set(TRANSITIONS) == set(Phase)


@pytest.mark.parametrize(
    ("phase", "possible"),
    [
        (Phase.STARTING, {Opened, Drain, Undrain, Cut}),
        (Phase.OPEN, {Drain, Undrain, Cut}),
        (Phase.DRAINING, {Drain, Undrain, TurnsDone, Cut}),
        (Phase.CANCELLING, {Drain, Undrain, TurnsRecorded, Cut}),
        (Phase.FINISHING, {Drain, Undrain, ExecsDone, Cut}),
        (Phase.CLOSING, {Drain, Undrain, SocketsClosed, Cut}),
        (Phase.CLOSED, {Drain, Undrain, Cut}),
    ],
)
def test_an_event_that_cannot_be_raises(phase, possible):
    made = {
        Opened: Opened(),
        Drain: drain(Reason.SHUTDOWN),
        Undrain: Undrain(Reason.OPERATOR),
        TurnsDone: TurnsDone(),
        TurnsRecorded: TurnsRecorded(1.0),
        ExecsDone: ExecsDone(),
        SocketsClosed: SocketsClosed(),
        Cut: Cut(),
    }
    for kind in EVENTS:
        if kind in possible:
            step(TO[phase], made[kind])
        else:
            with pytest.raises(ImpossibleTransition, match=f"{kind.__name__} while {phase.value}"):
                step(TO[phase], made[kind])


@pytest.mark.parametrize("reason", sorted(set(Reason) - FINAL, key=str))
def test_turns_are_not_cancelled_for_a_reason_that_can_pass(reason):
    state, _ = after(drain(reason), state=OPEN)
    with pytest.raises(ImpossibleTransition, match="without a final reason"):
        step(state, TurnsDone())


def test_opening_starts_what_was_queued():
    assert after(Opened()) == (State(Phase.OPEN), (Action.START_QUEUED,))


def test_a_reason_that_came_while_starting_is_a_drain_from_the_first_moment():
    state, actions = step(State(), drain(Reason.BACKEND))
    assert (state.phase, actions) == (Phase.STARTING, ())
    state, actions = step(state, Opened())
    assert (state.phase, actions) == (Phase.DRAINING, (Action.ANNOUNCE,))
    state, actions = step(state, Undrain(Reason.BACKEND))
    assert (state.phase, Action.START_QUEUED in actions) == (Phase.OPEN, True)


@pytest.mark.parametrize("reason", sorted(FINAL, key=str))
def test_a_final_reason_while_starting_leads_to_closing(reason):
    """Case 67."""
    state, actions = step(State(), drain(reason, at=5.0))
    assert state.phase is Phase.CLOSING
    assert actions == (Action.MOVE_DEADLINES, Action.CLOSE_SOCKETS)
    assert state.ends == 65.0
    assert state.phase_deadline == 65.0


def test_a_drain_is_told_before_anything_waits():
    state, actions = step(OPEN, drain(Reason.RESTART, at=100.0))
    assert actions == (Action.MOVE_DEADLINES, Action.ANNOUNCE)
    assert (state.turn_deadline, state.exec_deadline, state.ends) == (120.0, math.inf, 160.0)
    assert state.phase_deadline == 120.0


def test_cancelling_tells_then_settles_the_queue_then_cancels():
    _, actions = step(DOWN, TurnsDone())
    assert actions == (Action.ANNOUNCE, Action.SETTLE_QUEUED, Action.CANCEL_TURNS)


def test_closing_ends_execs_and_then_sockets():
    _, actions = step(TO[Phase.FINISHING], ExecsDone())
    assert actions == (Action.ANNOUNCE, Action.END_EXECS, Action.CLOSE_SOCKETS)


def test_a_reason_that_can_pass_has_no_deadline():
    state, actions = step(OPEN, drain(Reason.OPERATOR, at=7.0, grace=0.0))
    assert (state.turn_deadline, state.exec_deadline, state.ends) == (math.inf,) * 3
    assert state.phase_deadline == math.inf
    assert not state.final
    assert Action.ANNOUNCE in actions


def test_the_same_reason_again_says_nothing_and_keeps_who_asked_first():
    """Cases 13 and 17."""
    state, _ = step(OPEN, drain(Reason.OPERATOR, by="alice"))
    again, actions = step(state, drain(Reason.OPERATOR, at=9.0, by="bob"))
    assert (again, actions) == (state, ())
    assert again.asked[Reason.OPERATOR].by == "alice"


def test_a_drain_ends_when_its_last_reason_passes():
    state, _ = after(drain(Reason.OPERATOR), drain(Reason.BACKEND), state=OPEN)
    state, actions = step(state, Undrain(Reason.BACKEND))
    assert (state.phase, state.reasons) == (Phase.DRAINING, {Reason.OPERATOR})
    assert actions == (Action.MOVE_DEADLINES, Action.ANNOUNCE)
    state, actions = step(state, Undrain(Reason.OPERATOR))
    assert (state, actions[-1]) == (OPEN, Action.START_QUEUED)


@pytest.mark.parametrize("takes_back", [Reason.OPERATOR, Reason.RESTART])
def test_a_restart_can_be_taken_back_until_turns_are_cancelled(takes_back):
    """Case 15."""
    state, _ = step(OPEN, drain(Reason.RESTART))
    assert state.revocable
    opened, actions = step(state, Undrain(takes_back))
    assert (opened, actions) == (OPEN, (Action.MOVE_DEADLINES, Action.ANNOUNCE, Action.START_QUEUED))
    late, actions = after(TurnsDone(), Undrain(takes_back), state=state)
    assert (late.phase, late.reasons, actions) == (Phase.CANCELLING, {Reason.RESTART}, ())
    assert not late.revocable


def test_taking_back_a_restart_leaves_a_failing_backend_and_no_deadline():
    state, _ = after(drain(Reason.BACKEND), drain(Reason.RESTART), state=OPEN)
    state, actions = step(state, Undrain(Reason.OPERATOR))
    assert (state.phase, state.reasons) == (Phase.DRAINING, {Reason.BACKEND})
    assert (state.turn_deadline, state.exec_deadline, state.ends) == (math.inf,) * 3
    assert actions == (Action.MOVE_DEADLINES, Action.ANNOUNCE)


@pytest.mark.parametrize("reason", list(Reason))
def test_a_shutdown_is_never_taken_back(reason):
    state, actions = step(DOWN, Undrain(reason))
    assert (state, actions) == (DOWN, ())
    assert not DOWN.revocable


def test_with_both_the_exit_is_the_shutdowns_and_deadlines_stand():
    state, _ = after(
        drain(Reason.RESTART, at=0.0, grace=5.0), drain(Reason.SHUTDOWN, at=1.0, grace=20.0), state=OPEN
    )
    assert state.reasons >= {Reason.RESTART, Reason.SHUTDOWN}
    assert state.turn_deadline == 5.0
    left, _ = step(state, Undrain(Reason.OPERATOR))
    assert left.reasons == {Reason.SHUTDOWN}
    assert left.turn_deadline == 5.0, "deadlines stand while a final reason stands"


@pytest.mark.parametrize("phase", [Phase.CANCELLING, Phase.FINISHING, Phase.CLOSING])
def test_past_draining_a_final_reason_only_makes_haste(phase):
    later, actions = step(TO[phase], drain(Reason.SHUTDOWN, at=50.0))
    assert (later, actions) == (TO[phase], ())
    sooner, actions = step(TO[phase], drain(Reason.SHUTDOWN, at=1.0, grace=0.0, execs=2.0, budget=10.0))
    assert actions == (Action.MOVE_DEADLINES,)
    assert (sooner.phase, sooner.turn_deadline, sooner.exec_deadline, sooner.ends) == (phase, 1.0, 3.0, 11.0)


def test_the_execs_deadline_is_the_earlier_one():
    cancelling, _ = after(drain(Reason.SHUTDOWN, at=1.0, execs=5.0), TurnsDone(), state=OPEN)
    assert after(TurnsRecorded(4.0), state=cancelling)[0].phase_deadline == 4.0
    assert after(TurnsRecorded(40.0), state=cancelling)[0].phase_deadline == 6.0


@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.CLOSED])
def test_a_cut_ends_it_from_anywhere(phase):
    state, actions = step(TO[phase], Cut())
    assert (state.phase, actions) == (Phase.CLOSED, ())


def test_nothing_moves_what_is_closed():
    for event in (drain(Reason.SHUTDOWN, at=-1.0), drain(Reason.BACKEND), Undrain(Reason.OPERATOR), Cut()):
        assert step(TO[Phase.CLOSED], event) == (TO[Phase.CLOSED], ())


# --- walks ----------------------------------------------------------------------------------------

_reasons = st.sampled_from(list(Reason))
_times = st.floats(0, 100)
_asks = st.builds(
    drain, _reasons, at=st.just(0.0), grace=_times, budget=_times, execs=st.none() | _times
) | st.builds(Undrain, _reasons)
_walks = st.lists(_asks | st.sampled_from(["on", "on", "on", "cut"]), max_size=30)

_NEXT = {
    Phase.STARTING: Opened(),
    Phase.DRAINING: TurnsDone(),
    Phase.CANCELLING: TurnsRecorded(90.0),
    Phase.FINISHING: ExecsDone(),
    Phase.CLOSING: SocketsClosed(),
}


def the_shells(state, word):
    """What the shell sends in this phase when the wait that is under way ends, if one is."""
    if word == "cut":
        return Cut()
    waits = state.phase in _NEXT and (state.phase is not Phase.DRAINING or state.final)
    return _NEXT[state.phase] if waits else None


@given(_walks)
@example(["on", drain(Reason.RESTART), Undrain(Reason.OPERATOR), drain(Reason.SHUTDOWN), "on", "on", "on", "on"])
def test_any_walk_goes_forward_and_does_each_thing_once(walk):
    state, now = State(), 0.0
    counts = dict.fromkeys(ONCE, 0)
    for asked in walk:
        now += 1.0
        event = the_shells(state, asked) if isinstance(asked, str) else asked
        if event is None:
            continue
        if isinstance(event, Drain):
            event = evolve(event, at=now)
        before = state
        state, actions = step(before, event)

        backwards = ORDER.index(state.phase) < ORDER.index(before.phase)
        assert not backwards or (before.phase, state.phase) == (Phase.DRAINING, Phase.OPEN)
        assert not (backwards and before.reasons & {Reason.SHUTDOWN})
        assert (state.phase is Phase.OPEN) <= (not state.asked)
        if state.phase in (Phase.CANCELLING, Phase.FINISHING):
            assert state.final
        if before.final and state.final:
            assert state.turn_deadline <= before.turn_deadline
            assert state.exec_deadline <= before.exec_deadline
            assert state.ends <= before.ends
        if not state.final:
            assert (state.turn_deadline, state.exec_deadline, state.ends) == (math.inf,) * 3
        if Reason.SHUTDOWN in before.asked:
            assert Reason.SHUTDOWN in state.asked, "shutdown wins"
        for reason in before.reasons & state.reasons:
            assert state.asked[reason] is before.asked[reason], "who asked first is kept"

        told = Action.ANNOUNCE in actions
        if (state.phase, state.reasons) != (before.phase, before.reasons) and before.phase in (
            Phase.OPEN,
            Phase.DRAINING,
        ):
            assert told or isinstance(event, Cut)
        moved = (state.turn_deadline, state.exec_deadline, state.ends) != (
            before.turn_deadline,
            before.exec_deadline,
            before.ends,
        )
        assert not moved or Action.MOVE_DEADLINES in actions or state.phase is Phase.FINISHING
        assert (Action.START_QUEUED in actions) == (state.phase is Phase.OPEN and before.phase is not Phase.OPEN)
        if state == before:
            assert actions == (), "a late event does nothing"
        if ORDER.index(before.phase) > ORDER.index(Phase.DRAINING) and isinstance(event, Undrain):
            assert (state, actions) == (before, ())
        for action in ONCE:
            counts[action] += actions.count(action)

    reached = ORDER.index(state.phase)
    assert all(count <= 1 for count in counts.values()), counts
    if state.phase is Phase.CLOSING:
        assert counts[Action.CLOSE_SOCKETS] == 1
    if state.phase in (Phase.CANCELLING, Phase.FINISHING):
        assert counts[Action.CANCEL_TURNS] == counts[Action.SETTLE_QUEUED] == 1
    if reached < ORDER.index(Phase.CANCELLING):
        assert not any(counts.values())
