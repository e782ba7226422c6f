"""The log: numbers, messages that grow and close, and what is kept. `test_cursor.py` reads it."""

from core.logs import end, running, say
from gateway_trio.core.event_log import MESSAGE_CHARS, Log, Mark
from gateway_trio.core.events import Entry, Kind, Message, Prompt, Update
from gateway_trio.core.permission import ALLOW_OR_REJECT, CANCELLED, Answered, Asked

PLENTY = 10**9


# --- the log --------------------------------------------------------------------------------------


def test_numbers_have_no_gap_and_only_text_is_open():
    log = Log(PLENTY)
    entries = [
        log.append("t", body) for body in (Prompt("hi", "turn"), running("t"), Message(Kind.ANSWER), Update({}))
    ]
    assert [entry.number for entry in entries] == [1, 2, 3, 4]
    assert list(log) == entries
    assert log.last == 4
    assert [entry.open for entry in entries] == [False] * 4, "the update closed the message"
    assert log.get(3) is entries[2]
    assert log.get(5) is None


def test_any_other_event_of_an_owner_closes_its_message_and_no_other():
    log = Log(PLENTY)
    mine, other = log.append("t", Message(Kind.ANSWER)), log.append("e", Message(Kind.OUTPUT))
    log.append("t", Update({}))
    assert (mine.open, other.open) == (False, True)
    assert list(log.open_messages()) == [other]
    log.close("e")
    log.close("e")
    assert not other.open


def test_room_is_of_the_open_message_of_that_kind():
    log = Log(PLENTY)
    assert log.room("t", Kind.ANSWER) == 0
    log.append("t", Message(Kind.ANSWER))
    assert log.room("t", Kind.ANSWER) == MESSAGE_CHARS
    log.say("t", "abc")
    assert log.room("t", Kind.ANSWER) == MESSAGE_CHARS - 3
    assert log.room("t", Kind.THOUGHT) == 0
    log.say("t", "x" * (MESSAGE_CHARS - 3))
    assert log.room("t", Kind.ANSWER) == 0
    log.append("t", Message(Kind.ANSWER))
    assert log.room("t", Kind.ANSWER) == MESSAGE_CHARS


def test_what_is_kept_is_bounded_and_the_oldest_goes_first():
    log = Log(keep_bytes=5_000)
    for number in range(1000):
        log.append(f"t{number}", Prompt("x" * 100, "turn"))
        log.append(f"t{number}", end(f"t{number}"))
        assert sum(entry.bytes for entry in log) <= 5_000
    kept = [entry.number for entry in log]
    assert kept == list(range(log.trimmed + 1, 2001))
    assert log.next_kept(1) == kept[0]
    assert log.next_kept(2001) == 2001
    assert not log._ended.keys() - {entry.owner for entry in log}, "what was forgotten leaves nothing behind"


def test_an_open_message_and_the_newest_entry_stay():
    log = Log(keep_bytes=1)
    growing = log.append("t", Message(Kind.ANSWER))
    log.append("a", Update({}))
    log.append("b", Update({}))
    assert [entry.number for entry in log] == [1, 3]
    log.say("t", "x" * 100)
    assert str(growing.text) == "x" * 100
    log.append("t", Update({}))
    assert [entry.number for entry in log] == [4]


def test_a_text_counts_in_bytes():
    log = Log(keep_bytes=PLENTY)
    entry = log.append("t", Message(Kind.ANSWER))
    before = entry.bytes
    log.say("t", "é😀")
    assert entry.bytes == before + 6
    assert Entry(1, "t", Prompt("abc", "turn")).bytes == Entry(1, "t", Update({})).bytes + 3


def test_a_mark_has_the_last_number_and_what_the_open_messages_hold():
    log = Log(PLENTY)
    say(log, "t", "abc")
    say(log, "e", "x", Kind.OUTPUT)
    log.append("e", Update({}))
    assert log.mark() == Mark(3, {1: 3})


def test_unended_are_messages_whose_owner_had_not_ended_by_then():
    log = Log(PLENTY)
    say(log, "done", "1")
    log.append("done", end("done"))
    say(log, "t", "3")
    log.append("t", Update({}))
    assert [entry.number for entry in log.unended(4)] == [3]
    assert [entry.number for entry in log.unended(1)] == [1]
    log.append("t", end("t"))
    assert [entry.number for entry in log.unended(4)] == [3], "ended, but later"
    assert log.unended(5) == []


def test_gone_are_those_that_are_not_kept_as_long_as_somebody_may_lack_them():
    log = Log(keep_bytes=1_000)
    say(log, "t", "some text")
    for _ in range(4):
        log.append("t", Update({}))
    assert log.get(1) is None
    assert [(entry.number, str(entry.text)) for entry in log.gone(3)] == [(1, "")]
    assert log.gone(0) == []
    log.append("t", end("t"))
    assert [entry.number for entry in log.gone(3)] == [1]
    assert log.gone(log.last) == [], "whoever has the end has all of it"
    for _ in range(5):
        log.append("u", Update({}))
    assert log.gone(3) == [], "whoever could lack it is behind `trimmed` now"


def test_a_restored_log_goes_on_behind_what_was_stored():
    before = Log(PLENTY)
    say(before, "t", "half")
    before.append("t", end("t"))
    before.append("u", Update({}))
    newest = list(before)[1:]
    log = Log.restored(PLENTY, 3, newest)
    assert (log.last, log.trimmed, log.backed) == (3, 1, True)
    assert list(log) == newest
    assert log.unended(2) == []
    assert log.append("u", Update({})).number == 4
    assert (Log.restored(PLENTY, 3, []).trimmed, Log.restored(PLENTY, 0, []).trimmed) == (3, 0)


def test_what_is_recalled_is_in_the_history_alone():
    log = Log.restored(PLENTY, 3)
    log.recall([Entry(1, "t", Prompt("hi", "turn")), Entry(2, "t", running("t"))])
    log.restore([Entry(3, "t", end("t"))])
    assert [(turn.prompt.text, turn.state) for turn in log.history.newest()] == [("hi", "completed")]
    assert ([entry.number for entry in log], log.trimmed, log.get(1)) == ([3], 2, None)


def test_a_restored_log_is_bounded_too():
    before = Log(PLENTY)
    for _ in range(4):
        before.append("t", Update({}))
    log = Log.restored(1_000, 4, list(before))
    log.append("t", Update({}))
    assert [entry.number for entry in log] == [3, 4, 5]


def test_a_backed_log_does_not_remember_what_a_store_has():
    log = Log(1_000, backed=True)
    say(log, "t", "text")
    for _ in range(4):
        log.append("t", Update({}))
    assert log.get(1) is None
    assert log.gone(3) == []


def asked(log, owner, id_):
    return log.append(owner, Asked(id_, {"title": "x"}, ALLOW_OR_REJECT))


def test_a_permission_request_closes_the_open_message_and_is_open_until_its_answer():
    log = Log(PLENTY)
    say(log, "t", "abc")
    say(log, "t", "abc")
    one, two, other = asked(log, "t", "p1"), asked(log, "t", "p2"), asked(log, "u", "p3")
    assert not any(entry.open for entry in log if isinstance(entry.body, Message))
    assert log.unanswered() == [one, two, other]
    assert log.unanswered("t") == [one, two]
    log.append("t", Answered("p2", CANCELLED))
    assert (one.open, two.open, other.open) == (True, False, True)
    log.append("t", Answered("p2", CANCELLED))
    assert log.unanswered() == [one, other]


def test_nothing_of_an_owner_is_open_behind_its_end():
    log = Log(PLENTY)
    one, other = asked(log, "t", "p1"), asked(log, "u", "p2")
    log.append("t", running("t"))
    assert one.open
    log.append("t", end("t"))
    assert (one.open, other.open) == (False, True)


def test_an_open_request_stays_and_counts():
    log = Log(keep_bytes=1)
    entry = asked(log, "t", "p1")
    assert entry.bytes > Entry(1, "t", Update({})).bytes + 10
    for _ in range(3):
        log.append("u", Update({}))
    assert [kept.number for kept in log] == [1, 4]
    log.append("t", Answered("p1", CANCELLED))
    assert [kept.number for kept in log] == [5]


def test_the_last_words_of_a_turn_answer_what_it_left_asked():
    log = Log(PLENTY)
    asked(log, "t", "p1"), asked(log, "u", "p2")
    assert log.last_words(end("t")) == [Answered("p1", CANCELLED), end("t")]
    assert log.last_words(end("v")) == [end("v")]


def test_a_restored_request_is_open_until_its_answer():
    before = Log(PLENTY)
    asked(before, "t", "p1"), asked(before, "t", "p2")
    before.append("t", Answered("p1", CANCELLED))
    log = Log.restored(PLENTY, 3, [Entry(e.number, e.owner, e.body) for e in before])
    assert [entry.number for entry in log.unanswered()] == [2]


def test_what_is_unsaved_is_not_forgotten_before_it_is_saved():
    log = Log(keep_bytes=500, backed=True)
    entry = log.append("a", Update({}))
    entry.unsaved = True
    for _ in range(9):
        log.append("b", Update({}))
    assert log.get(1) is entry
    assert log.get(2) is None
    assert (log.next_kept(1), log.next_kept(2), log.next_kept(99)) == (1, log.trimmed + 1, log.last + 1)
    entry.unsaved = False
    log.trim()
    assert log.get(1) is None
    assert log.next_kept(1) == log.trimmed + 1
