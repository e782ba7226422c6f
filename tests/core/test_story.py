from gateway_trio.core.story import Story
from gateway_trio.core.updates import State, Text


def said(seq, text, owner="t", kind="answer"):
    return Text(kind, owner, seq, 0, text)


def state(name, owner="t", work="turn", **more):
    data = {"id": owner, "state": name, **more}
    return State(work, owner, 9, name, reason=more.get("reason"), position=more.get("position"), data=data)


def told(*updates):
    story = Story()
    lines = [line for update in updates for line in story.take(update)]
    return lines + story.end()


def test_a_turn_and_one_that_was_interrupted():
    assert told(
        said(1, "hello", kind="prompt"),
        state("queued", position=2),
        state("running"),
        said(2, "hi"),
        state("completed"),
        said(6, "more", owner="u", kind="prompt"),
        state("queued", owner="u"),
        state("running", owner="u"),
        said(7, "a par", owner="u"),
        state("interrupted", owner="u", reason="the gateway was cut off"),
    ) == ["> hello", "hi", "> more", "a par", "· interrupted: the gateway was cut off"]


def test_how_quick_commands_ended():
    good = {"status": "exited", "exitCode": 0, "seconds": 0.25, "background": 0}
    assert told(said(1, "up\n", "x", "output"), state("completed", "x", "exec", **good)) == [
        "up",
        "· exit code 0 after 0.2 s",
    ]
    bad = said(1, "no\n[exit code 7 after 0.1 s]", "x", "output")
    for facts in ({"exitCode": 7}, {"background": 2}, {"status": "timeout"}):
        assert told(bad, state("completed", "x", "exec", **(good | facts))) == ["no", "[exit code 7 after 0.1 s]"]
    assert told(state("completed", "x", "exec", status="exited", exitCode=0)) == ["· exit code 0 after 0.0 s"]


def test_what_has_no_end_yet():
    assert told(
        said(1, "hello", kind="prompt"), state("queued"), state("running"), said(4, "as far as"),
        state("queued", "u", position=1), state("queued", "x", "exec"), state("running", "y", "exec"),
        state("odd", "z", "exec"), state("queued", "w"), state("odd", "w"),
    ) == ["> hello", "as far as", "· a turn runs", "· a turn waits", "· a quick command waits", "· a quick command runs"]  # fmt: skip


def test_nothing_in_it_is_an_instruction_to_the_terminal():
    assert told(said(1, "\x1b[2Jred\x9b31m\n", kind="prompt")) == ["> [2Jred31m"]
