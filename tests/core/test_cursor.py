"""The cursor: any interleaving of appends, slow pulls and reconnects rebuilds the same text.

`Client` is what a client does with what it is given: it puts each text where it belongs, and notes what it was
told is lost. The walks compare that with the log, or, where the log was trimmed, with all that was ever in it.
"""

import pytest
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st

from core.logs import end, running, say
from gateway_trio.core.cursor import Cursor, Lost, Missing, Piece
from gateway_trio.core.event_log import Log, Mark
from gateway_trio.core.events import Entry, Kind, Message, Update
from gateway_trio.core.permission import ALLOW_OR_REJECT, CANCELLED, Answered, Asked
from gateway_trio.core.text import Text

PLENTY = 10**9

thorough = settings(max_examples=3 * settings.default.max_examples)


def everything(_entry):
    return True


def pulled(cursor, room=16 * 1024):
    found = []
    while (piece := cursor.pull(room)) is not None:
        found.append(piece)
    return found


def shown(pieces):
    """Pieces as (number, at, text), losses as (from, upto)."""
    return [(p.start, p.upto) if isinstance(p, Lost) else (p.entry.number, p.at, p.text) for p in pieces]


# --- the three rules ------------------------------------------------------------------------------


def test_live_a_message_is_given_as_it_grows():
    log = Log(PLENTY)
    cursor = Cursor.live(log, everything)
    assert cursor.pull(9) is None
    log.append("t", Message(Kind.ANSWER))
    assert shown(pulled(cursor)) == []
    say(log, "t", "hel")
    assert shown(pulled(cursor)) == [(1, 0, "hel")]
    say(log, "t", "lo")
    assert shown(pulled(cursor, room=1)) == [(1, 3, "l"), (1, 4, "o")]
    log.append("t", end("t"))
    assert shown(pulled(cursor)) == [(2, 0, "")]


def test_first_the_rest_of_a_closed_message_then_the_next_number_then_what_grows():
    log = Log(PLENTY)
    say(log, "a", "aaaa")
    say(log, "b", "bbbb")
    cursor = Cursor(log, everything)
    assert shown([cursor.pull(2), cursor.pull(2)]) == [(1, 0, "aa"), (2, 0, "bb")]
    log.append("a", Update({}))
    say(log, "b", "BB")
    assert shown(pulled(cursor, room=2)) == [(1, 2, "aa"), (3, 0, ""), (2, 2, "bb"), (2, 4, "BB")]


def test_closed_messages_go_oldest_first():
    log = Log(PLENTY)
    for owner in "abc":
        say(log, owner, owner * 4)
    cursor = Cursor(log, everything)
    assert shown([cursor.pull(1) for _ in range(4)]) == [(1, 0, "a"), (2, 0, "b"), (3, 0, "c"), (1, 1, "a")]
    for owner in "cab":
        log.append(owner, end(owner))
    assert [number for number, _, _ in shown(pulled(cursor))] == [1, 2, 3, 4, 5, 6]


def test_growing_messages_take_turns():
    log = Log(PLENTY)
    for owner in "ab":
        say(log, owner, owner * 6)
    cursor = Cursor(log, everything)
    assert [p[0] for p in shown(pulled(cursor, room=2))] == [1, 2, 1, 2, 1, 2]


def test_a_fast_answer_is_not_starved_by_one_that_grows_faster_than_it_is_read():
    """A long answer and a slow client: an exec that comes and goes is told within a few pieces."""
    log = Log(PLENTY)
    cursor = Cursor.live(log, everything)
    log.append("t", running("t"))
    for tick in range(60):
        say(log, "t", "x" * 10)
        if tick == 50:
            log.append("e", running("e"))
            say(log, "e", "UPTIME", Kind.OUTPUT)
            log.append("e", end("e"))
            break
        cursor.pull(7)
    told = [cursor.pull(7) for _ in range(4)]
    assert [piece.entry.owner for piece in told if piece.entry.owner == "e"] == ["e"] * 3


def test_a_whole_cursor_steps_over_a_message_until_it_is_closed():
    log = Log(PLENTY)
    cursor = Cursor.live(log, everything, whole=True)
    say(log, "t", "half")
    say(log, "e", "UPTIME", Kind.OUTPUT)
    log.append("e", end("e"))
    assert shown(pulled(cursor)) == [(2, 0, "UPTIME"), (3, 0, "")], "an exec's answer does not wait for a turn's"
    say(log, "t", " and half")
    assert pulled(cursor) == []
    log.append("t", end("t"))
    assert shown(pulled(cursor)) == [(1, 0, "half and half"), (4, 0, "")]


def test_a_whole_cursor_gives_a_long_message_in_pieces():
    log = Log(PLENTY)
    cursor = Cursor.live(log, everything, whole=True)
    say(log, "t", "abcde")
    log.append("t", end("t"))
    assert shown(pulled(cursor, room=2)) == [(1, 0, "ab"), (1, 2, "cd"), (1, 4, "e"), (2, 0, "")]


def test_what_a_connection_may_not_see_is_stepped_over():
    log = Log(PLENTY)
    say(log, "t", "seen")
    log.append("e", Message(Kind.OUTPUT), admin=True)
    log.say("e", "secret")
    for cursor in (
        Cursor(log, see := lambda entry: not entry.admin),
        Cursor.live(log, see),
        Cursor.resumed(log, see, 2),
    ):
        assert {piece.entry.number for piece in pulled(cursor)} == {1}
    log.append("e", end("e"), admin=True)
    assert {piece.entry.number for piece in pulled(Cursor(log, see))} == {1}


def test_live_begins_with_what_still_grows():
    log = Log(PLENTY)
    say(log, "old", "before")
    log.append("old", end("old"))
    say(log, "t", "grow")
    cursor = Cursor.live(log, everything)
    say(log, "t", "ing")
    log.append("t", end("t"))
    assert shown(pulled(cursor)) == [(3, 0, "growing"), (4, 0, "")]


def test_resumed_begins_with_messages_whose_owner_had_not_ended():
    log = Log(PLENTY)
    say(log, "done", "1")
    log.append("done", end("done"))
    say(log, "t", "3")
    log.append("t", Update({}))
    say(log, "t", "5")
    assert [entry.number for entry in log.unended(5)] == [3, 5]
    log.append("t", end("t"))
    assert [entry.number for entry in log.unended(5)] == [3, 5], "ended, but after what the client has"
    assert [entry.number for entry in log.unended(6)] == []
    assert [entry.number for entry in log.unended(1)] == [1]
    assert shown(pulled(Cursor.resumed(log, everything, 5))) == [(3, 0, "3"), (5, 0, "5"), (6, 0, "")]


# --- trimming -------------------------------------------------------------------------------------


def test_whoever_comes_is_given_the_requests_that_are_open_once():
    log = Log(PLENTY)
    for owner, id_ in (("t", "p1"), ("t", "p2"), ("hidden", "p3"), ("t", "p4")):
        log.append(owner, Asked(id_, {}, ALLOW_OR_REJECT))
    log.append("t", Answered("p1", CANCELLED))

    def sees(entry):
        return entry.owner != "hidden"

    assert shown(pulled(Cursor.live(log, sees))) == [(2, 0, ""), (4, 0, "")]
    assert shown(pulled(Cursor.resumed(log, sees, 2))) == [(2, 0, ""), (4, 0, ""), (5, 0, "")]
    assert shown(pulled(Cursor(log, sees))) == [(1, 0, ""), (2, 0, ""), (4, 0, ""), (5, 0, "")]

    late = Cursor.live(log, sees)
    log.append("t", Answered("p2", CANCELLED))
    assert shown(pulled(late)) == [(4, 0, ""), (6, 0, "")], "p2 was answered before it was pulled"


def test_a_cursor_that_is_too_far_behind_is_told_which_numbers():
    log = Log(keep_bytes=1)
    cursor = Cursor(log, everything)
    for _ in range(9):
        log.append("t", Update({}))
    assert shown(pulled(cursor)) == [(1, 8), (9, 0, "")]


def test_around_an_open_message_the_losses_are_told_in_their_places():
    log = Log(keep_bytes=1)
    log.append("a", Update({}))
    log.append("b", Update({}))
    say(log, "t", "stays")
    log.append("c", Update({}))
    log.append("d", Update({}))
    assert shown(pulled(Cursor(log, everything))) == [(1, 2), (3, 0, "stays"), (4, 4), (5, 0, "")]


@pytest.mark.parametrize("whole", [True, False])
def test_a_message_whose_rest_is_gone_is_lost_by_its_number(whole):
    log = Log(keep_bytes=1)
    cursor = Cursor.live(log, everything, whole=whole)
    say(log, "t", "some text")
    part = cursor.pull(4)
    assert part is None if whole else shown([part]) == [(1, 0, "some")]
    log.append("t", end("t"))
    log.append("u", Update({}))
    assert shown(pulled(cursor)) == [(1, 1), (2, 2), (3, 0, "")]


def test_a_client_that_may_have_only_a_part_of_what_was_dropped_is_told():
    """It has 2 and a part of 1; then the rest of 1 came, was closed, and was dropped."""
    log = Log(keep_bytes=1_100)
    say(log, "t", "part")
    log.append("e", Update({}))
    say(log, "t", " and the rest")
    log.append("t", end("t"))
    log.append("e", Update({}))
    log.append("e", Update({}))
    assert log.get(1) is None
    assert log.get(3) is not None
    assert shown(pulled(Cursor.resumed(log, everything, 2))) == [(1, 1), (3, 0, ""), (4, 0, ""), (5, 0, "")]
    assert shown(pulled(Cursor.resumed(log, lambda entry: entry.number > 1, 2))) == [
        (3, 0, ""),
        (4, 0, ""),
        (5, 0, ""),
    ], "what it may not see is stepped over"


def test_a_resume_that_was_cut_off_is_told_what_it_replaced_and_cannot_get_again():
    """A resume gives the messages of an unfinished turn anew; the client may then have less of them than before."""
    log = Log(keep_bytes=1_000)
    say(log, "t", "all of it")
    log.append("t", Update({}))
    first = Cursor.resumed(log, everything, 2)
    assert shown([first.pull(3)]) == [(1, 0, "all")]
    log.append("t", Update({}))
    log.append("t", Update({}))
    assert log.get(1) is None
    again = Cursor.resumed(log, everything, 3)
    mark = log.mark()
    assert not again.passed(mark)
    assert shown(pulled(again)) == [(1, 1), (4, 0, "")]
    assert again.passed(mark)
    log.append("t", end("t"))
    for _ in range(5):
        log.append("u", Update({}))
    assert log.gone(log.trimmed) == [], "nobody who could lack it can resume any more"
    assert log._gone == {}


# --- marks ----------------------------------------------------------------------------------------


def test_a_mark_is_passed_when_all_that_stood_there_was_given_and_not_before():
    log = Log(PLENTY)
    log.append("t", running("t"))
    say(log, "t", "abc")
    mark = log.mark()
    assert mark == Mark(2, {2: 3})
    say(log, "t", "def")
    cursor = Cursor(log, everything)
    given = []
    while not cursor.passed(mark):
        given.append(cursor.pull(2))
    assert shown(given) == [(1, 0, ""), (2, 0, "ab"), (2, 2, "cd")]
    assert cursor.passed(Mark(0, {}))
    assert not cursor.passed(log.append("t", end("t")) and log.mark())


def test_a_mark_waits_for_a_closed_message_to_its_end():
    log = Log(PLENTY)
    say(log, "t", "abcd")
    log.append("t", end("t"))
    mark = log.mark()
    cursor = Cursor(log, everything)
    seen = []
    while not cursor.passed(mark):
        seen.append(cursor.pull(3))
    assert shown(seen) == [(1, 0, "abc"), (1, 3, "d"), (2, 0, "")]


@pytest.mark.parametrize("closed", [True, False])
def test_a_mark_is_not_passed_before_what_is_lost_was_told(closed):
    log = Log(keep_bytes=900)
    say(log, "t", "abcd")
    cursor = Cursor(log, everything)
    assert shown([cursor.pull(1)]) == [(1, 0, "a")]
    if closed:
        log.close("t")
    mark = log.mark()
    log.append("t", end("t"))
    log.append("u", Update({}))
    log.append("u", Update({}))
    assert log.get(1) is None
    assert not cursor.passed(mark)
    assert shown([cursor.pull(1)]) == [(1, 1)]
    assert cursor.passed(mark)


# --- what a store still has -----------------------------------------------------------------------


def backed(keep=1_000):
    """A backed log that has forgotten most of its entries, and all that a store has of it."""
    log = Log(keep, backed=True)
    stored = {}
    for owner in ("a", "b", "c", "d"):
        say(log, owner, owner * 3)
        log.append(owner, end(owner))
        stored |= {entry.number: entry for entry in log}
    assert log.trimmed >= 5
    return log, stored


def page(stored, start, most=2):
    return [stored[number] for number in sorted(stored) if number >= start][:most]


def copied(entry):
    """An entry as a store gives it: it does not grow any more."""
    return Entry(entry.number, entry.owner, entry.body, entry.admin, text=Text(str(entry.text)))


def fetched(cursor, stored, room=16 * 1024, most=2):
    """All that there is, with a store that is asked for what is missing."""
    found = []
    while (piece := cursor.pull(room)) is not None:
        if isinstance(piece, Missing):
            assert cursor.pull(room) == piece, "until it is given"
            cursor.give(piece, page(stored, piece.start, most))
        else:
            found.append(piece)
    return found


def test_what_the_log_forgot_is_asked_for_and_given_page_by_page():
    log, stored = backed()
    assert Cursor(log, everything).pull(9) == Missing(1, log.trimmed + 1)
    expected = [
        (1, 0, "aaa"),
        (2, 0, ""),
        (3, 0, "bbb"),
        (4, 0, ""),
        (5, 0, "ccc"),
        (6, 0, ""),
        (7, 0, "ddd"),
        (8, 0, ""),
    ]
    for most in (1, 2, 3, 8):
        cursor = Cursor(log, everything)
        mark = log.mark()
        assert not cursor.passed(mark)
        assert shown(fetched(cursor, stored, most=most)) == expected
        assert cursor.passed(mark)


def test_what_the_store_does_not_keep_any_more_is_lost():
    log, stored = backed()
    for number in (1, 2, 4):
        del stored[number]
    assert shown(fetched(Cursor(log, everything), stored))[:4] == [(1, 2), (3, 0, "bbb"), (4, 4), (5, 0, "ccc")]
    numbers = (log.trimmed + 1, log.last + 1)
    assert shown(fetched(Cursor(log, everything), {}))[0] == (1, log.trimmed)
    assert [p[0] for p in shown(fetched(Cursor(log, everything), {}))[1:]] == list(range(*numbers))


def test_what_a_page_has_of_a_message_that_still_grew_does_not_count():
    """The message is closed and forgotten while a slow client reads the page that came with a part of it."""
    log, stored = backed()
    log.append("e", running("e"))
    say(log, "e", "ab")
    message = log.last
    stored |= {entry.number: entry for entry in log}
    cursor = Cursor(log, everything)
    given = []
    while (piece := cursor.pull(9)) is not None:
        if isinstance(piece, Missing):
            cursor.give(piece, [copied(entry) for entry in page(stored, piece.start, 100)])
        else:
            given.append(piece)
    say(log, "e", "cdef")
    log.append("e", end("e"))
    stored |= {entry.number: entry for entry in log}
    for _ in range(9):
        stored |= {entry.number: entry for entry in [log.append("f", Update({}))]}
    assert log.get(message) is None
    given += fetched(cursor, stored)
    assert [p.text for p in given if p.entry.number == message] == ["ab", "cdef"]


def test_a_resumed_cursor_fetches_messages_that_were_unfinished():
    log, stored = backed()
    cursor = Cursor.resumed(log, everything, 1, growing=[1, log.last - 1])
    assert shown(fetched(cursor, stored))[:2] == [(1, 0, "aaa"), (2, 0, "")]
    del stored[1]
    assert shown(fetched(Cursor.resumed(log, everything, 1, growing=[1]), stored))[:2] == [(1, 1), (2, 0, "")]


def test_a_fetched_message_that_may_not_be_seen_is_stepped_over():
    log, stored = backed()
    cursor = Cursor.resumed(log, lambda entry: entry.owner != "a", 2, growing=[1])
    assert [p[0] for p in shown(fetched(cursor, stored))] == [3, 4, 5, 6, 7, 8]


# --- walks ----------------------------------------------------------------------------------------


@define
class Client:
    """Puts together what it is given. `lost` are the numbers it was told are gone."""

    texts: dict = field(factory=dict)
    order: list = field(factory=list)
    lost: set = field(factory=set)
    top: int = 0

    def take(self, piece):
        if isinstance(piece, Lost):
            assert piece.start <= piece.upto
            self.lost |= set(range(piece.start, piece.upto + 1))
            self.top = max(self.top, piece.upto)
            return
        number = piece.entry.number
        before = self.texts.get(number, "")
        assert piece.at <= len(before), f"a gap in {number}"
        self.texts[number] = before[: piece.at] + piece.text
        self.order.append(number)
        self.top = max(self.top, number)


@define
class Session:
    """A log, and beside it all that ever was in it."""

    log: Log
    texts: dict = field(factory=dict)
    owners: dict = field(factory=dict)  # number → owner
    messages: set = field(factory=set)
    live: list = field(factory=list)
    born: int = 0
    stored: dict = field(factory=dict)  # number → entry, whatever the log keeps

    def act(self, what, which, text):
        if what == "begin" and len(self.live) < 4:
            self.born += 1
            owner = f"o{self.born}"
            self.live.append(owner)
            self.note(self.log.append(owner, running(owner), admin=which == 3))
        elif self.live:
            owner = self.live[which % len(self.live)]
            admin = any(e.admin for e in self.log if e.owner == owner)
            if what == "say" and text:
                if not self.log.room(owner, Kind.ANSWER):
                    entry = self.log.append(owner, Message(Kind.ANSWER), admin=admin)
                    self.note(entry)
                    self.messages.add(entry.number)
                (number,) = (e.number for e in self.log.open_messages() if e.owner == owner)
                self.log.say(owner, text)
                self.texts[number] += text
            elif what == "tool":
                self.note(self.log.append(owner, Update({}), admin=admin))
            elif what == "end":
                self.live.remove(owner)
                self.note(self.log.append(owner, end(owner), admin=admin))

    def note(self, entry):
        self.texts[entry.number] = ""
        self.stored[entry.number] = entry
        self.owners[entry.number] = entry.owner


_act = st.tuples(
    st.sampled_from(["begin", "say", "say", "say", "tool", "end"]),
    st.integers(0, 3),
    st.text(alphabet="abcé😀", max_size=9),
)
_pull = st.tuples(st.just("pull"), st.integers(1, 8), st.integers(1, 3))
_back = st.tuples(st.sampled_from(["resume", "resume", "live", "load"]), st.just(0), st.just(0))
_mark = st.tuples(st.just("mark"), st.just(0), st.just(0))
_walk = st.lists(_act | _act | _pull | _back, max_size=80)
#: Long enough to be trimmed, with clients that are away while others go on.
_long_walk = st.lists(_act | _act | _act | _pull | _back, min_size=15, max_size=60)


def walk_through(steps, session, client, cursor, reconnect):
    for what, number, more in steps:
        if what == "pull":
            for _ in range(more):
                if (piece := cursor.pull(number)) is not None:
                    client.take(piece)
        elif what in ("resume", "live", "load"):
            client, cursor = reconnect(what, client, cursor)
        else:
            session.act(what, number, more)
    for piece in pulled(cursor, room=5):
        client.take(piece)
    return client, cursor


@thorough
@given(_walk)
def test_any_interleaving_with_reconnects_rebuilds_the_same_text(steps):
    """A client that resumes behind the highest number it has, or loads anew, ends with exactly the log."""
    session = Session(Log(PLENTY))

    def reconnect(how, client, _cursor):
        if how == "load":
            return Client(), Cursor(session.log, everything)
        fresh = evolve(client, order=[])
        return fresh, Cursor.resumed(session.log, everything, client.top)

    # "live" resumes as well here: one that starts live has no earlier text to compare.
    client, cursor = walk_through(steps, session, Client(), Cursor(session.log, everything), reconnect)
    assert client.texts == session.texts == {entry.number: str(entry.text) for entry in session.log}
    assert not client.lost
    assert cursor.passed(session.log.mark())


@thorough
@given(_walk, st.booleans())
def test_numbers_come_in_order_and_no_event_before_its_owners_text(steps, whole):
    session = Session(Log(PLENTY))
    cursor = Cursor(session.log, everything, whole=whole)
    client = Client()
    first, given_ = [], {}

    def check(piece):
        number = piece.entry.number
        if number not in given_:
            first.append(number)
        given_[number] = piece.at + len(piece.text)
        client.take(piece)
        if whole and number in session.messages:
            assert not piece.entry.open
        if number not in session.messages:
            for other in session.messages:
                if other < number and session.owners[other] == session.owners[number]:
                    assert given_.get(other) == len(session.texts[other]), "an owner's event before its text"

    for what, number, more in steps:
        if what == "pull":
            for _ in range(more):
                if (piece := cursor.pull(number)) is not None:
                    check(piece)
        elif what not in ("resume", "live", "load"):
            session.act(what, number, more)
    for owner in session.live:
        session.log.close(owner)
    while (piece := cursor.pull(3)) is not None:
        check(piece)
    if not whole:
        assert first == sorted(first)
    others = [number for number in first if number not in session.messages]
    assert others == sorted(others)
    assert client.texts == session.texts


@thorough
@given(_walk)
def test_live_gives_everything_from_there_on_and_growing_messages_from_their_start(steps):
    session = Session(Log(PLENTY))
    expected = set()

    def reconnect(_how, _client, _cursor):
        log = session.log
        expected.clear()
        expected.update({entry.number for entry in log.open_messages()}, {-log.last})
        return Client(), Cursor.live(log, everything)

    client, _ = walk_through(steps, session, Client(), Cursor.live(session.log, everything), reconnect)
    start = max((-number for number in expected if number <= 0), default=0)
    wanted = {n for n in session.texts if n > start or n in expected}
    assert client.texts == {number: session.texts[number] for number in wanted}


@thorough
@given(_long_walk, st.integers(2, 8))
def test_with_trimming_what_is_lost_is_told_and_the_rest_is_right(steps, keep):
    """The client resumes as the gateway has it: behind `trimmed` it is told so, and loads what is there."""
    session = Session(Log(keep * 310))

    def reconnect(_how, client, _cursor):
        log = session.log
        if client.top < log.trimmed:
            return Client(), Cursor(log, everything)
        return client, Cursor.resumed(log, everything, client.top)

    client, cursor = walk_through(steps, session, Client(), Cursor(session.log, everything), reconnect)
    for number, text in session.texts.items():
        if number not in client.lost:
            assert client.texts.get(number) == text, f"number {number} is neither whole nor told to be lost"
    assert all(number in session.texts for number in client.lost)
    assert cursor.passed(session.log.mark())


@thorough
@given(_long_walk, st.integers(2, 8), st.integers(1, 4))
def test_with_a_store_behind_it_nothing_is_lost(steps, keep, most):
    """However little the log keeps and a page has."""
    session = Session(Log(keep * 310, backed=True))
    client, cursor = Client(), Cursor(session.log, everything)

    def take(piece):
        if isinstance(piece, Missing):
            cursor.give(piece, [copied(entry) for entry in page(session.stored, piece.start, most)])
        elif piece is not None:
            client.take(piece)

    for what, number, more in steps:
        if what == "pull":
            for _ in range(more):
                take(cursor.pull(number))
        elif what == "load":
            client, cursor = Client(), Cursor(session.log, everything)
        elif what in ("resume", "live"):
            top = client.top
            ended = {e.owner for n, e in session.stored.items() if n <= top and e.body == end(e.owner)}
            growing = [n for n in session.messages if n <= top and session.owners[n] not in ended]
            cursor = Cursor.resumed(session.log, everything, top, growing)
        else:
            session.act(what, number, more)
    while (piece := cursor.pull(5)) is not None:
        take(piece)
    assert client.texts == session.texts
    assert not client.lost
    assert cursor.passed(session.log.mark())


@thorough
@given(_walk)
def test_nobody_is_given_what_they_may_not_see(steps):
    session = Session(Log(PLENTY))

    def for_users(entry):
        return not entry.admin

    def reconnect(how, client, _cursor):
        if how == "resume":
            return client, Cursor.resumed(session.log, for_users, client.top)
        return Client(), Cursor(session.log, for_users)

    client, _ = walk_through(steps, session, Client(), Cursor(session.log, for_users), reconnect)
    assert client.texts == {e.number: str(e.text) for e in session.log if not e.admin}


@thorough
@given(st.lists(_act | _act | _pull | _mark, max_size=60), st.booleans(), st.sampled_from([PLENTY, 3_000]))
def test_a_mark_holds_exactly(steps, whole, keep):
    """It is passed if and only if each text that stood in the log then was given, or told to be lost."""
    session = Session(Log(keep))
    cursor = Cursor(session.log, everything, whole=whole)
    client = Client()
    marks = []

    def given_in_full(mark, stood):
        return cursor.next > mark.last and all(
            number in client.lost or len(client.texts.get(number, "")) >= length
            for number, length in stood.items()
        )

    def look():
        for mark, stood in marks:
            passed, given_ = cursor.passed(mark), given_in_full(mark, stood)
            assert passed <= given_, "passed too early"
            # Of a trimmed log a loss may be told for what was given in full: nobody knows its length any more.
            assert keep != PLENTY or passed == given_, "passed too late"

    for what, number, more in steps:
        if what == "pull":
            for _ in range(more):
                if (piece := cursor.pull(number)) is not None:
                    client.take(piece)
                look()
        elif what == "mark":
            marks.append((session.log.mark(), {n: len(t) for n, t in session.texts.items()}))
        else:
            session.act(what, number, more)
        look()
    for owner in session.live:
        session.log.close(owner)
    while (piece := cursor.pull(4)) is not None:
        client.take(piece)
        look()
    assert all(cursor.passed(mark) for mark, _ in marks)


def test_a_piece_of_what_is_complete_has_no_text():
    log = Log(PLENTY)
    entry = log.append("t", Update({"a": 1}))
    assert Cursor(log, everything).pull(1) == Piece(entry, 0, "")
