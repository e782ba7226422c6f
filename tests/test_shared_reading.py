"""What is read and made for one client of a session serves the others too. In virtual time."""

import contextlib

import pytest
import trio

from gateway_trio.config import parse_config
from gateway_trio.core.cursor import Lost, Piece
from gateway_trio.core.events import Change, Entry, Kind, Message
from gateway_trio.core.text import Text
from gateway_trio.dialects.acp_frames import frames_of
from gateway_trio.dialects.frame_cache import FrameCache
from gateway_trio.page_cache import PageCache
from gateway_trio.testing import KeptStore, ScriptedAgent, open_gateway, ours_of

SMALL = parse_config("[session]\nkeep_bytes = 2000\n", environ={})
TURNS = 60
CLIENTS = 20


class CountingStore(KeptStore):
    """Takes its time to read a page, and knows from where on pages were read."""

    def __init__(self):
        super().__init__()
        self.read = []
        self.reading = trio.Event()

    async def events(self, session_id, start, *, keep_bytes):
        if keep_bytes > 1:  # not one that looks for an event
            self.read.append(start)
            self.reading.set()
        await trio.sleep(0.01)
        return await super().events(session_id, start, keep_bytes=keep_bytes)


@contextlib.asynccontextmanager
async def long_session():
    """A gateway with a session of which most is in the store alone."""
    store = CountingStore()
    with trio.fail_after(3600):
        async with open_gateway(SMALL, agent=ScriptedAgent({"go": ["answer " * 100]}), store=store) as lab:
            writer = await lab.acp()
            session = await writer.new_session()
            for _ in range(TURNS):
                await writer.prompt(session, "go")
            yield store, lab, session


async def load(lab, session):
    client = await lab.acp()
    await client.call("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
    return client


def told(client):
    """Return all updates of the session that a client was sent."""
    return [frame["params"] for frame in client.frames if ours_of(frame).get("seq")]


async def test_those_who_load_at_once_share_what_is_read(autojump_clock):
    async with long_session() as (store, lab, session):
        loaded = []

        async def another():
            loaded.append(await load(lab, session))

        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(another)
        once, store.read = store.read, []
        assert len(once) == len(set(once)) > 5, "most of it is not in memory, and each page was read once"
        late = await load(lab, session)
        assert store.read == [], "all pages were still there"
        assert len(told(late)) == TURNS * 5
        assert [told(client) for client in loaded] == [told(late)] * CLIENTS


async def test_one_that_goes_while_it_reads_leaves_the_page_to_the_next(autojump_clock):
    async with long_session() as (store, lab, session):
        goes, stays = await lab.acp(), await lab.acp()
        params = {"sessionId": session, "cwd": "/", "mcpServers": []}
        await goes.ask("session/load", params)
        await store.reading.wait()
        assert store.read == [1], "it is reading"
        asked = await stays.ask("session/load", params)
        await trio.sleep(0.001)
        await goes.websocket.aclose()
        await stays.answer(asked)
        assert store.read[:2] == [1, 1]
        assert next(ours_of(frame)["seq"] for frame in stays.frames if ours_of(frame).get("seq")) == 1


# --- the caches ---


def page(start):
    return [
        Entry(number, "t", Change("turn", "t", "running", 1, ends=False)) for number in range(start, start + 3)
    ]


def test_pages_that_were_used_last_are_kept():
    cache = PageCache(most=2)
    first, second, third = page(1), page(4), page(7)
    cache.put("s", 1, first)
    cache.put("s", 4, second)
    assert cache.get("s", 1) is first
    cache.put("s", 7, third)
    assert [cache.get("s", start) for start in (1, 4, 7)] == [first, None, third]
    assert cache.get("other", 1) is None


def test_that_there_is_nothing_is_not_kept():
    """What the log forgets a moment later stands in the store by then."""
    cache = PageCache()
    cache.put("s", 1, [])
    assert cache.get("s", 1) is None


class Session:
    id = "s"

    def __init__(self, readers):
        self.readers = set(range(readers))


def message(text, number=1):
    return Entry(number, "t", Message(Kind.ANSWER), text=Text(text))


def test_frames_are_made_once_for_those_who_read_the_same():
    cache, entry = FrameCache(), message("hello you")
    for piece in (Piece(entry, 0, "hello"), Piece(entry, 5, " you"), Piece(entry, 0, "hello you")):
        made = cache.frames_of(Session(2), piece)
        assert made == frames_of("s", piece)
        assert cache.frames_of(Session(2), piece) is made
        assert cache.frames_of(Session(1), piece) is not made, "for one alone nothing is kept"
    other = Piece(message("hello"), 0, "hello")
    assert cache.frames_of(Session(2), other) == frames_of("s", other)


def test_what_was_lost_is_told_to_each():
    assert FrameCache().frames_of(Session(2), Lost(1, 3)) == frames_of("s", Lost(1, 3))


@pytest.mark.parametrize("most", [0, 5_000])
def test_frames_are_kept_up_to_so_many_characters(most):
    cache, session = FrameCache(most), Session(2)
    pieces = [Piece(message("x" * 1000, number), 0, "x" * 1000) for number in range(1, 11)]
    made = [cache.frames_of(session, piece) for piece in pieces]
    kept = [
        cache.frames_of(session, piece) is frames for piece, frames in zip(pieces[::-1], made[::-1], strict=True)
    ]
    size = len(made[0][0])
    assert kept[: most // size + 1] == [True] * (most // size) + [False]
