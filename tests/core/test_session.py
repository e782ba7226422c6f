"""One conversation: any sequence of steps keeps one running turn, the order, the limit, and one outcome a turn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_trio.core.session import MOVES, OUTCOMES, Busy, Conversation, ImpossibleMove, Place, TurnState

S = TurnState


def test_the_table_of_moves():
    assert {
        S.ACCEPTING: {S.QUEUED, S.REFUSED},
        S.QUEUED: {S.RUNNING, S.CANCELLED, S.INTERRUPTED},
        S.RUNNING: {S.COMPLETED, S.CANCELLED, S.INTERRUPTED, S.FAILED},
        S.COMPLETED: set(),
        S.CANCELLED: set(),
        S.INTERRUPTED: set(),
        S.FAILED: set(),
        S.REFUSED: set(),
    } == MOVES
    assert {S.COMPLETED, S.CANCELLED, S.INTERRUPTED, S.FAILED} == OUTCOMES


@pytest.mark.parametrize("state", list(TurnState))
@pytest.mark.parametrize("to", list(TurnState))
def test_a_move_that_is_not_in_the_table_raises_and_changes_nothing(state, to):
    place = Place()
    place.state = state
    if to in MOVES[state]:
        place.move(to)
        assert place.state is to
    else:
        with pytest.raises(ImpossibleMove, match=f"{state.value} → {to.value}"):
            place.move(to)
        assert place.state is state


def filled(limit, count):
    """A conversation in which one runs and `count - 1` wait."""
    conversation = Conversation(limit)
    places = [Place() for _ in range(count)]
    for place in places:
        assert conversation.admit(place, Busy.QUEUE) is not None
        conversation.stored(place)
        conversation.start()
    return conversation, places


def test_the_queue_is_full_at_its_limit_and_the_running_one_does_not_count():
    conversation, places = filled(2, 3)
    assert conversation.running is places[0]
    assert [place for place in conversation.queue if place.state is S.QUEUED] == places[1:]
    for busy in Busy:
        assert conversation.admit(Place(), busy) is None
    conversation.end(places[0], S.COMPLETED)
    assert conversation.start() is places[1]
    assert conversation.admit(Place(), Busy.QUEUE) == 1


def test_one_that_can_start_at_once_takes_no_place_in_the_queue():
    conversation = Conversation(0)
    first = Place()
    assert conversation.admit(first, Busy.REFUSE) == 0
    assert conversation.admit(Place(), Busy.QUEUE) is None
    conversation.stored(first)
    assert conversation.start() is first
    assert conversation.admit(Place(), Busy.INTERRUPT) is None


def test_refuse_is_for_whatever_runs_or_waits():
    conversation, (first,) = filled(5, 1)
    assert conversation.admit(Place(), Busy.REFUSE) is None
    conversation.end(first, S.FAILED)
    assert conversation.idle
    waiting = Place()
    assert conversation.admit(waiting, Busy.REFUSE) == 0
    assert conversation.admit(Place(), Busy.REFUSE) is None, "one that is not stored yet is there all the same"


def test_interrupt_goes_to_the_head_and_cancels_nothing_itself():
    conversation, places = filled(5, 3)
    urgent = Place()
    assert conversation.admit(urgent, Busy.INTERRUPT) == 0
    assert conversation.running is places[0]
    assert places[0].state is S.RUNNING
    conversation.stored(urgent)
    conversation.end(places[0], S.CANCELLED)
    assert conversation.start() is urgent


def test_one_that_is_not_stored_yet_holds_its_place():
    conversation, (first,) = filled(5, 1)
    slow, fast = Place(), Place()
    conversation.admit(slow, Busy.QUEUE)
    conversation.admit(fast, Busy.QUEUE)
    conversation.stored(fast)
    conversation.end(first, S.COMPLETED)
    assert conversation.start() is None, "the order is that of admission"
    assert not conversation.drop(slow, S.CANCELLED), "it is not accepted yet"
    conversation.refuse(slow)
    assert slow.state is S.REFUSED
    assert conversation.start() is fast


def test_one_that_was_accepted_before_waits_at_the_end_whatever_the_limit():
    conversation, first, second = Conversation(0), Place(), Place()
    for place in (first, second):
        conversation.restore(place)
    assert conversation.queue == [first, second]
    assert conversation.start() is first
    assert second.state is TurnState.QUEUED


def test_dropping_what_does_not_wait_any_more_does_nothing():
    conversation, (first, second) = filled(5, 2)
    assert not conversation.drop(first, S.CANCELLED)
    assert first.state is S.RUNNING
    assert conversation.drop(second, S.INTERRUPTED)
    assert not conversation.drop(second, S.CANCELLED)
    assert second.state is S.INTERRUPTED


def test_only_the_running_one_can_end():
    conversation, (first, second) = filled(5, 2)
    with pytest.raises(ImpossibleMove, match="does not run here"):
        conversation.end(second, S.CANCELLED)
    assert (conversation.running, [place for place in conversation.queue if place.state is S.QUEUED]) == (
        first,
        [second],
    )
    with pytest.raises(ImpossibleMove):
        conversation.end(first, S.QUEUED)
    assert conversation.running is first


class Noting(Place):
    """A place that remembers its way."""

    def __init__(self, name):
        super().__init__()
        self.name = name
        self.way = [self.state]

    def move(self, state):
        super().move(state)
        self.way.append(state)

    def __repr__(self):
        return f"<{self.name} {self.state.value}>"


_steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "admit",
                "admit",
                "interrupt",
                "refuse-busy",
                "stored",
                "stored",
                "not stored",
                "start",
                "start",
                "end",
                "drop",
            ]
        ),
        st.integers(0, 5),
        st.sampled_from([S.COMPLETED, S.CANCELLED, S.INTERRUPTED, S.FAILED]),
    ),
    max_size=60,
)


@given(_steps, st.integers(0, 4))
def test_any_sequence_keeps_one_running_the_order_and_one_outcome(steps, limit):
    conversation = Conversation(limit)
    model, admitted, running = [], [], None

    def pick(state, which):
        some = [place for place in admitted if place.state is state]
        return some[which % len(some)] if some else None

    for number, (what, which, outcome) in enumerate(steps):
        match what:
            case "admit" | "interrupt" | "refuse-busy":
                busy = {"admit": Busy.QUEUE, "interrupt": Busy.INTERRUPT, "refuse-busy": Busy.REFUSE}[what]
                place = Noting(number)
                idle = running is None and not model
                room = len(model) < limit + (running is None)
                position = conversation.admit(place, busy)
                if not room or (busy is Busy.REFUSE and not idle):
                    assert position is None
                    continue
                assert position == (0 if busy is Busy.INTERRUPT else len(model))
                model.insert(position, place)
                admitted.append(place)
            case "stored":
                if place := pick(S.ACCEPTING, which):
                    conversation.stored(place)
            case "not stored":
                if place := pick(S.ACCEPTING, which):
                    conversation.refuse(place)
                    model.remove(place)
            case "start":
                started = conversation.start()
                can = running is None and model and model[0].state is S.QUEUED
                if running is None and started is None:
                    assert not can
                else:
                    assert (started is None) == (running is not None)
                if started is not None:
                    assert started is model.pop(0), "the head, and no other"
                    running = started
            case "end" if running is not None:
                conversation.end(running, outcome)
                running = None
            case "drop" if outcome in (S.CANCELLED, S.INTERRUPTED) and (place := pick(S.QUEUED, which)):
                assert conversation.drop(place, outcome)
                model.remove(place)
        assert conversation.running is running
        assert conversation.queue == model
        assert [place for place in conversation.queue if place.state is S.QUEUED] == [
            place for place in model if place.state is S.QUEUED
        ]
        assert conversation.idle == (running is None and not model)
        assert len(model) <= limit + 1
        assert [place for place in admitted if place.state is S.RUNNING] == ([running] if running else [])

    for place in list(model):
        conversation.stored(place) if place.state is S.ACCEPTING else None
    while running := conversation.running or conversation.start():
        conversation.end(running, S.COMPLETED)
    assert conversation.idle
    for place in admitted:
        ends = [state for state in place.way if state in OUTCOMES or state is S.REFUSED]
        assert len(ends) == 1, place.way
        assert place.way[-1] is ends[0]
        assert (S.QUEUED in place.way) == (ends[0] is not S.REFUSED)


def test_hours_of_filling_and_draining_leave_nothing_behind():
    """Case 49."""
    conversation = Conversation(32)
    ended = 0
    for _ in range(2_000):
        places = [Place() for _ in range(33)]
        for place in places:
            assert conversation.admit(place, Busy.QUEUE) is not None
            conversation.stored(place)
            conversation.start()
        assert conversation.admit(Place(), Busy.QUEUE) is None
        for place in places[30:]:
            assert conversation.drop(place, S.CANCELLED)
        for place in places[:30]:
            assert conversation.running is place
            conversation.end(place, S.COMPLETED)
            conversation.start()
            ended += 1
        assert conversation.idle
    assert ended == 60_000
    assert vars(conversation) == vars(Conversation(32)), "as new"
