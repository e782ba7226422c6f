"""The turns that a model is told of: kept up to date they are those that a look through the whole log finds."""

from hypothesis import given
from hypothesis import strategies as st

from core.logs import end, running
from gateway_trio.core.event_log import Log
from gateway_trio.core.events import Change, Kind, Message, Prompt, Update
from gateway_trio.core.history import NEW_CONVERSATION

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


def test_what_the_log_forgets_goes_prompt_first():
    log = Log(1900, backed=True)
    turn(log, "a", "one", "1")
    assert told(log) == [("one", ["1"], "completed")]
    log.append("x", Prompt("/note milk", "exec"))
    log.append("b", Prompt("two", "turn"))
    assert [text for text, _, _ in told(log)] == ["one"]
    log.append("b", running("b"))
    assert (log.trimmed, told(log)) == (1, [("two", [], "running")])
    for part in "123":
        log.append("b", Message(Kind.ANSWER))
        log.say("b", part)
    assert told(log) == [("two", ["1", "2", "3"], "running")]
    for _ in range(3):
        log.append("b", Update({}))
    assert told(log) == [], "its prompt is gone, and the rest is no turn without"


def test_a_part_of_an_answer_goes_alone_where_the_prompt_must_stay():
    log = Log(1500, backed=True)
    log.append("a", Prompt("one", "turn")).unsaved = True
    log.append("a", running("a"))
    for part in "123":
        log.append("a", Message(Kind.ANSWER))
        log.say("a", part)
    for _ in range(2):
        log.append("a", Update({}))
    assert told(log) == [("one", ["3"], "running")]


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
    log, reached = Log(keep_bytes, backed=True), {}
    for step, *rest in steps:
        owner = rest[0] if rest else ""
        at = reached.get(owner)
        match step:
            case "prompt" if at is None:
                log.append(owner, Prompt(owner * 50, "turn", replaces=rest[1] if reached.get(rest[1]) else None))
                reached[owner] = "queued"
            case "run" if at == "queued":
                log.append(owner, running(owner))
                reached[owner] = "running"
            case "say" if at == "running":
                log.append(owner, Message(rest[1]))
                log.say(owner, f"said by {owner}")
            case "end" if at in ("queued", "running"):
                log.append(owner, end(owner, rest[1]))
                reached[owner] = "ended"
            case "new":
                log.append("n", Update(NEW_CONVERSATION))
        for before in (None, "a"):
            # Of a turn that replaced one that is still there the log may have forgotten less, never more.
            assert told(log, before) == looked_up(log, before)
    restored = Log.restored(PLENTY, log.last, list(log))
    assert told(restored) == looked_up(log)
