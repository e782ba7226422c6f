"""The turns that a model is told of: kept up to date they are those that a look through the whole log finds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.logs import end, running
from gateway_trio.core.event_log import Log
from gateway_trio.core.events import Change, Entry, Kind, Message, Prompt, Update
from gateway_trio.core.history import NEW_CONVERSATION, Reach, in_conversation
from gateway_trio.core.text import Text

PLENTY = 10**9


def told(log, before=None):
    """Return what stands in the history, the oldest first."""
    return [(t.prompt.text, [str(e.text) for e in t.answer], t.state) for t in log.history.newest(before=before)][
        ::-1
    ]


def looked_up(log, before=None):
    """Return the same, from the log's entries alone."""
    turns, ran, replaced = {}, [], set()
    for entry in log:
        turn = turns.get(entry.owner)
        match entry.body:
            case Update(data) if data == NEW_CONVERSATION:
                ran = []
            case Prompt(text, "turn"):
                turns[entry.owner] = [text, [], "queued", entry.body.replaces]
            case Message(Kind.ANSWER) if turn:
                turn[1].append(str(entry.text))
            case Change("turn", _, state) if turn:
                turn[2] = state
                if state == "running":
                    ran.append(entry.owner)
                    replaced.add(turn[3])
    if before is not None:
        ran = ran[: ran.index(before)] if before in ran else []
    return [tuple(turns[id_][:3]) for id_ in ran if id_ not in replaced]


def turn(log, owner, text, answer="", state="completed", **more):
    log.append(owner, Prompt(text, "turn", **more))
    log.append(owner, running(owner))
    if answer:
        log.append(owner, Message(Kind.ANSWER))
        log.say(owner, answer)
    log.append(owner, end(owner, state))


def test_what_waits_is_not_in_it_and_what_is_asked_for_ran_before():
    log = Log(PLENTY)
    turn(log, "a", "one", "1")
    log.append("b", Prompt("two", "turn"))
    assert told(log) == [("one", ["1"], "completed")]
    log.append("b", running("b"))
    assert told(log) == [("one", ["1"], "completed"), ("two", [], "running")]
    assert told(log, before="b") == [("one", ["1"], "completed")]


def test_the_newest_come_first_and_cost_what_is_taken():
    log = Log(PLENTY)
    for number in range(1000):
        turn(log, f"t{number}", str(number))
    newest = log.history.newest()
    assert [next(newest).prompt.text for _ in range(3)] == ["999", "998", "997"]


def test_execs_and_thoughts_are_not_in_it():
    log = Log(PLENTY)
    log.append("x", Prompt("/note milk", "exec"))
    log.append("x", Change("exec", "x", "running", 1, ends=False))
    log.append("x", Message(Kind.ANSWER))
    log.append("a", Prompt("hi", "turn"))
    log.append("a", running("a"))
    log.append("a", Message(Kind.THOUGHT))
    assert told(log) == [("hi", [], "running")]


def test_what_was_run_again_is_there_once_and_a_new_conversation_begins_with_nothing():
    log = Log(PLENTY)
    turn(log, "a", "try", "no", "failed")
    turn(log, "b", "try", "yes", replaces="a")
    turn(log, "c", "of another session", replaces="gone")
    assert [text for text, _, _ in told(log)] == ["try", "of another session"]
    log.append("n", Update(NEW_CONVERSATION))
    assert told(log) == []
    turn(log, "d", "next")
    assert [text for text, _, _ in told(log)] == ["next"]


def test_what_the_log_forgets_stays_in_it():
    log = Log(3000)
    turn(log, "a", "my name is Ann", "hello")
    for number in range(50):
        log.append(f"x{number}", Prompt("/big", "exec"))
        log.append(f"x{number}", Message(Kind.OUTPUT))
        log.say(f"x{number}", "x" * 1000)
        log.append(f"x{number}", Change("exec", f"x{number}", "completed", 1, ends=True))
    assert not [entry for entry in log if entry.owner == "a"]
    assert told(log) == [("my name is Ann", ["hello"], "completed")]
    assert (log.history.last.id, log.history.last.prompt.text) == ("a", "my name is Ann")


def test_the_turn_that_ended_first_goes_first():
    """Each of them takes 600 bytes, and what its texts have."""
    log = Log(2000)
    for owner in "abc":
        log.append(owner, Prompt(owner, "turn"))
    for owner in "acb":
        log.append(owner, running(owner))
        log.append(owner, Message(Kind.ANSWER))
        log.say(owner, owner * 50)
        log.append(owner, end(owner))
    assert [text for text, _, _ in told(log)] == ["a", "c", "b"]
    turn(log, "d", "d", "d" * 50)
    assert [text for text, _, _ in told(log)] == ["c", "b", "d"]
    log.append("e", Prompt("x" * 300, "turn"))
    assert [text for text, _, _ in told(log)] == ["b", "d"], "what waits is in memory too"


def test_what_runs_or_waits_is_not_let_go_of():
    log = Log(1000, backed=True)
    log.append("z", Prompt("z" * 400, "turn"))
    for owner in "abc":
        log.append(owner, Prompt(owner * 400, "turn"))
    log.append("a", running("a"))
    log.append("a", end("a"))
    assert told(log) == []
    for owner in "bz":
        log.append(owner, running(owner))
    assert [text[0] for text, _, _ in told(log)] == ["b", "z"]


def test_of_an_answer_that_is_too_long_the_newest_parts_stay():
    log = Log(1500, backed=True)
    log.append("a", Prompt("one", "turn"))
    log.append("a", running("a"))
    for part in "12345":
        log.append("a", Message(Kind.ANSWER))
        log.say("a", part)
    assert told(log) == [("one", ["3", "4", "5"], "running")]
    log.append("a", end("a"))
    log.append("x", Message(Kind.ANSWER))
    log.say("x", "of no turn" * 1000)
    assert told(log) == [("one", ["3", "4", "5"], "completed")]
    log.append("b", Prompt("two" * 300, "turn"))
    assert told(log) == []


def test_an_answer_of_one_message_stays_while_nothing_is_asked():
    log = Log(1500, backed=True)
    turn(log, "a", "one", "1" * 5000)
    assert told(log) == [("one", ["1" * 5000], "completed")]
    log.append("b", Prompt("two", "turn"))
    assert told(log) == []


def test_what_is_run_again_is_the_newest_or_what_was_interrupted_since():
    log = Log(PLENTY)
    assert log.history.last is None
    for owner in "abc":
        log.append(owner, Prompt(owner, "turn"))
    assert log.history.last.id == "c"
    log.append("b", end("b", "interrupted"))
    log.append("a", end("a", "interrupted"))
    assert log.history.last.id == "b", "the newest of them"
    log.append("x", Prompt("/note", "exec"))
    log.append("gone", end("gone", "interrupted"))
    log.append("c", end("c"))
    assert log.history.last.id == "b"
    log.append("n", Update(NEW_CONVERSATION))
    assert log.history.last.id == "b"
    turn(log, "d", "d")
    assert log.history.last.id == "d"


def test_what_is_run_again_is_known_although_its_turn_is_not_in_memory_any_more():
    log = Log(1000, backed=True)
    log.append("a", Prompt("slow", "turn"))
    log.append("b", Prompt("waits", "turn"))
    log.append("a", running("a"))
    log.append("a", end("a", "interrupted"))
    log.append("b", running("b"))
    log.append("b", Message(Kind.ANSWER))
    log.say("b", "x" * 5000)
    log.append("b", end("b"))
    assert [text for text, _, _ in told(log)] == ["waits"]
    assert (log.history.last.prompt.text, list(log.history.last.answer)) == ("slow", [])


def test_a_restored_log_recalls_what_was_before():
    before = Log(PLENTY)
    turn(before, "a", "one", "1")
    turn(before, "b", "two", "2")
    entries = list(before)
    log = Log.restored(PLENTY, before.last)
    log.recall(entry for entry in entries[:5] if in_conversation(entry.body))
    log.restore(entries[5:])
    assert told(log) == told(before)
    assert (log.trimmed, len(list(log))) == (5, len(entries) - 5)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (Prompt("hi", "turn"), True),
        (Prompt("/x", "exec"), False),
        (Message(Kind.ANSWER), True),
        (Message(Kind.THOUGHT), False),
        (Message(Kind.OUTPUT), False),
        (end("t"), True),
        (Change("exec", "x", "running", 1, ends=False), False),
        (Update(NEW_CONVERSATION), True),
        (Update({}), False),
    ],
)
def test_the_conversation_is_what_a_history_is_made_of(body, wanted):
    assert in_conversation(body) is wanted


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_a_session_is_read_back_until_the_history_is_full_and_its_turns_are_whole(at_once):
    log = Log(PLENTY)
    turn(log, "a", "before", "what")
    first = log.last + 1
    log.append("b", Prompt("slow", "turn"))
    log.append("c", Prompt("waits", "turn"))
    log.append("b", running("b"))
    for part in "123":
        log.append("b", Message(Kind.ANSWER))
        log.say("b", part)
    for number in range(50):
        log.append(f"x{number}", Prompt("/x", "exec"))
        log.append(f"x{number}", Change("exec", f"x{number}", "completed", 1, ends=True))
    entries, reach = list(log), Reach(500)
    while not reach.reached:
        reach.take(entries[-at_once:])
        del entries[-at_once:]
    assert first - at_once <= len(entries) + 1 <= first


def test_a_session_is_not_read_back_for_ever_for_a_prompt():
    reach = Reach(500)
    reach.take([Entry(1, "t", Message(Kind.ANSWER), text=Text("x" * 9_000_000))])
    assert reach.reached


def test_a_session_is_read_back_further_while_the_history_takes_more():
    reach = Reach(500)
    reach.take([Entry(2, "t", Prompt("x", "turn")), Entry(3, "e", Prompt("x" * 1000, "exec"))])
    assert not reach.reached
    reach.take([Entry(1, "n", Update(NEW_CONVERSATION))])
    assert not reach.reached, "a history does not count that"
    reach.take([Entry(1, "u", Prompt("x", "turn"))])
    assert reach.reached


def test_a_session_is_read_back_as_far_as_its_history_was_kept():
    log = Log(5000)
    for number in range(100):
        turn(log, f"t{number}", "short", "and so")
    everything = Log(PLENTY)
    for number in range(100):
        turn(everything, f"t{number}", "short", "and so")
    entries, reach, read = list(everything), Reach(5000), []
    while not reach.reached:
        read.insert(0, entries.pop())
        reach.take(read[:1])
    again = Log(5000)
    again.recall(read)
    ids = [past.id for past in log.history.newest()]
    assert [past.id for past in again.history.newest()] == ids


OWNERS = ("a", "b", "c", "d")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("prompt"), st.sampled_from(OWNERS), st.sampled_from((None, *OWNERS))),
        st.tuples(st.just("run"), st.sampled_from(OWNERS)),
        st.tuples(st.just("say"), st.sampled_from(OWNERS), st.sampled_from(Kind)),
        st.tuples(st.just("end"), st.sampled_from(OWNERS), st.sampled_from(("completed", "interrupted"))),
        st.tuples(st.just("new")),
    ),
    max_size=60,
)


@given(STEPS, st.integers(300, 5000))
def test_a_walk_of_a_log_that_forgets(steps, keep_bytes):
    """Each owner has one prompt, runs at most once, says nothing before it runs, and nothing after its end."""
    whole, log, reached = Log(PLENTY), Log(keep_bytes, backed=True), {}
    for step, *rest in steps:
        owner = rest[0] if rest else ""
        at = reached.get(owner)
        match step:
            case "prompt" if at is None:
                bodies = [Prompt(owner * 50, "turn", replaces=rest[1] if reached.get(rest[1]) else None)]
                reached[owner] = "queued"
            case "run" if at == "queued":
                bodies = [running(owner)]
                reached[owner] = "running"
            case "say" if at == "running":
                bodies = [Message(rest[1])]
            case "end" if at in ("queued", "running"):
                bodies = [end(owner, rest[1])]
                reached[owner] = "ended"
            case "new":
                owner, bodies = "n", [Update(NEW_CONVERSATION)]
            case _:
                continue
        for each in (whole, log):
            for body in bodies:
                each.append(owner, body)
                if step == "say":
                    each.say(owner, f"said by {owner}")
        for before in (None, "a"):
            assert told(whole, before) == looked_up(whole, before)
        check_bounded(log, whole, keep_bytes)
    restored = Log.restored(PLENTY, whole.last, list(whole))
    assert told(restored) == looked_up(whole)
    assert getattr(restored.history.last, "id", None) == getattr(whole.history.last, "id", None)


def check_bounded(log, whole, keep_bytes):
    """Its turns are the newest of all, their answers may lack a beginning; and nothing could go besides."""
    assert getattr(log.history.last, "id", None) == getattr(whole.history.last, "id", None)
    kept = {turn.id: turn for turn in log.history.newest()}
    every = list(whole.history.newest())
    ended = [turn.id for turn in every if turn.state not in ("queued", "running")]
    assert [id_ for id_ in ended if id_ in kept] == ended[: len([id_ for id_ in ended if id_ in kept])]
    assert [id_ for id_ in kept if id_ not in ended] == [turn.id for turn in every if turn.id not in ended]
    for turn in every:
        if turn.id in kept:
            parts = [entry.number for entry in kept[turn.id].answer]
            assert parts == [entry.number for entry in turn.answer][len(turn.answer) - len(parts) :]
            assert bool(parts) == bool(turn.answer)
    size = sum(turn.bytes for turn in kept.values())
    assert size <= keep_bytes or len(kept) == 1 or all(len(turn.answer) <= 1 for turn in kept.values())
