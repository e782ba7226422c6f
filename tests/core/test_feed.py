from hypothesis import given
from hypothesis import strategies as st

from gateway_trio.core.feed import Feed
from gateway_trio.core.updates import Notice, Skipped, Text


def text(at, said, seq=1):
    return Text("answer", "t", seq, at, said)


def drain(feed):
    found = []
    while (update := feed.take()) is not None:
        found.append(update)
    return found


def test_updates_come_out_in_their_order():
    feed = Feed()
    for update in (Notice("a"), text(0, "b"), Notice("c")):
        feed.put(update)
    assert drain(feed) == [Notice("a"), text(0, "b"), Notice("c")]
    assert drain(feed) == []


def test_text_that_follows_text_is_joined():
    feed = Feed()
    for update in (text(0, "ab"), text(2, "cd"), text(4, "e"), text(0, "x", seq=2), text(1, "y", seq=2)):
        feed.put(update)
    assert drain(feed) == [text(0, "abcde"), text(0, "xy", seq=2)]


def test_text_that_replaces_is_not():
    feed = Feed()
    for update in (text(0, "abc"), text(1, "x"), Notice("!"), text(2, "y")):
        feed.put(update)
    assert drain(feed) == [text(0, "abc"), text(1, "x"), Notice("!"), text(2, "y")]


def test_the_oldest_go_and_are_counted():
    feed = Feed(most_updates=2)
    for name in "abcde":
        feed.put(Notice(name))
    assert drain(feed) == [Skipped(3), Notice("d"), Notice("e")]
    feed.put(Notice("f"))
    assert drain(feed) == [Notice("f")]


def test_text_is_bounded_too_but_the_newest_stays():
    feed = Feed(most_chars=10)
    feed.put(text(0, "x" * 6))
    feed.put(text(0, "y" * 4, seq=2))
    feed.put(text(0, "z" * 3, seq=3))
    assert drain(feed) == [Skipped(1), text(0, "y" * 4, seq=2), text(0, "z" * 3, seq=3)]
    feed.put(text(0, "w" * 30))
    assert drain(feed) == [text(0, "w" * 30)]
    feed.put(text(0, "v" * 9))
    assert drain(feed) == [text(0, "v" * 9)], "what was taken counts no more"


@given(st.lists(st.integers(0, 5)))
def test_what_fits_is_all_there(takes):
    """A text cut in pieces and taken at any pace is the text."""
    feed, said, place = Feed(), "", 0
    whole = "".join(chr(97 + n % 26) for n in range(100))
    for count in takes:
        feed.put(text(place, whole[place : place + 3]))
        place = min(place + 3, len(whole))
        for _ in range(count):
            if (update := feed.take()) is not None:
                said = said[: update.at] + update.text
    for update in drain(feed):
        said = said[: update.at] + update.text
    assert said == whole[:place]
