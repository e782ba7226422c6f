"""Sessions and their events."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from gateway_trio.core.events import Body, Kind, Message, Prompt, Update
from gateway_trio.core.events import Change as Outcome
from gateway_trio.core.history import NEW_CONVERSATION, in_conversation
from gateway_trio.store import (
    AddEvent,
    AddSession,
    DropSession,
    EventRow,
    Retract,
    SessionRow,
    SetText,
    Store,
)
from gateway_trio.store_check.common import (
    ALL,
    Rule,
    added,
    ended,
    numbers,
    prompted,
    refuses,
    same,
    unfinished,
)

__all__ = ["RULES"]


async def sessions_and_names(store: Store) -> None:
    same(await store.session("names-1"), None, "a session that there is not")
    same(await store.named("names", "main"), None, "a name that there is not")
    await store.commit([AddSession("names-1", "names", "main", "epoch"), AddSession("names-2", "names")])
    await store.commit([AddSession("names-3", "names"), AddSession("names-4", "names too", "main")])
    first = SessionRow("names-1", "names", "main", "epoch", 0)
    same(await store.session("names-1"), first, "the session")
    same(await store.named("names", "main"), first, "the session by its name")
    same((await store.owners()).get("names"), 3, "how many sessions an owner has")
    everything = [row.id for row in await store.sessions(None, skip=0, limit=1000) if row.id.startswith("names-")]
    same(everything, ["names-4", "names-3", "names-2", "names-1"], "all sessions, newest first")
    for skip, limit, wanted in ((0, 2, ["names-3", "names-2"]), (2, 2, ["names-1"]), (3, 2, [])):
        found = [row.id for row in await store.sessions("names", skip=skip, limit=limit)]
        same(found, wanted, f"sessions of one owner, skip {skip}, limit {limit}")
    await refuses(store, AddSession("names-5", "names", "main"))
    await refuses(store, AddSession("names-1", "names"))
    await store.commit([DropSession("names-1"), DropSession("names-9"), AddSession("names-5", "names", "main")])
    same(await store.session("names-1"), None, "a session that was dropped")
    same(
        await store.named("names", "main"), SessionRow("names-5", "names", "main", "", 0), "its name, given again"
    )


async def a_dropped_session_leaves_its_turns(store: Store) -> None:
    await added(store, "dropped")
    await store.commit([*prompted("dropped", 1, "dropped-t", "key"), DropSession("dropped")])
    same(await numbers(store, "dropped"), [], "its events")
    same([work.id for work in await store.keyed("dropped", 9)], ["dropped-t"], "its turns")
    same([work.id for work in await unfinished(store, "dropped")], ["dropped-t"], "its turns that wait")
    await refuses(store, AddEvent("dropped", 2, "dropped-t", Prompt("hi", "turn")))
    await store.commit([AddSession("dropped", "dropped's")])
    same(await numbers(store, "dropped"), [], "the events of a new session with its id")


# --- events ---


async def numbers_are_contiguous(store: Store) -> None:
    await added(store, "numbers")
    event = AddEvent("numbers", 1, "t", Prompt("hi", "turn"))
    await refuses(store, evolve(event, number=2))
    await refuses(store, evolve(event, number=0))
    await refuses(store, evolve(event, session="numbers of nobody"))
    await store.commit([event, evolve(event, number=2)])
    await refuses(store, event)
    await refuses(store, evolve(event, number=2))
    await refuses(store, evolve(event, number=4))
    await store.commit([evolve(event, number=3)])
    found = await store.session("numbers")
    same(found and found.last, 3, "the last number")
    same(await numbers(store, "numbers"), [1, 2, 3], "the numbers")


async def events_come_back_as_they_were(store: Store) -> None:
    bodies: Sequence[Body] = (
        Prompt("a\0é😀\n", "turn", ({"type": "text", "text": "é"},), "sender", "t0"),
        Outcome("turn", "t", "queued", 1, ends=False, key="k", position=0),
        *(Message(kind) for kind in Kind),
        Update({"tool": [1, 2.5, None, True], "nested": {"a": []}}),
        ended("t", 1),
    )
    await added(store, "bodies", *(("t", body) for body in bodies))
    await store.commit([AddEvent("bodies", len(bodies) + 1, "e", Prompt("/x", "exec"), admin=True)])
    wanted = [EventRow(number, "t", body) for number, body in enumerate(bodies, 1)]
    wanted.append(EventRow(len(bodies) + 1, "e", Prompt("/x", "exec"), admin=True))
    same(await store.events("bodies", 1, keep_bytes=ALL), wanted, "the events")
    same(await store.tail("bodies", keep_bytes=ALL), wanted, "the newest events")
    same(await store.events("bodies", 4, keep_bytes=ALL), wanted[3:], "the events from the fourth on")
    for session, start in (("bodies", 99), ("bodies of nobody", 1)):
        same(list(await store.events(session, start, keep_bytes=ALL)), [], f"{session} from {start} on")
    same(list(await store.tail("bodies of nobody", keep_bytes=ALL)), [], "the newest of no session")


async def a_text_is_what_was_set_last(store: Store) -> None:
    await added(store, "texts", ("t", Message(Kind.ANSWER)), ("u", Message(Kind.OUTPUT)))
    for text in ("a", "a\0é😀", "half a pair \ud800", "x" * 300_000, ""):
        await store.commit([SetText("texts", 1, "not this"), SetText("texts", 1, text)])
        rows = await store.events("texts", 1, keep_bytes=ALL)
        same([row.text for row in rows], [text, ""], "the texts")
    await store.commit([SetText("texts", 1, "here")])
    await store.commit([SetText("texts", 9, "nowhere"), SetText("texts of nobody", 1, "nowhere")])
    rows = await store.events("texts", 1, keep_bytes=ALL)
    same([row.text for row in rows], ["here", ""], "the texts, after some of numbers that are gone")


async def as_many_as_the_bytes_hold(store: Store) -> None:
    await added(store, "many", *((f"t{i}", Message(Kind.ANSWER)) for i in range(40)))
    await store.commit([SetText("many", number, "x" * 1000) for number in range(1, 41)])
    read: list[int] = []
    while page := await store.events("many", len(read) + 1, keep_bytes=10_000):
        if not 1 <= len(page) < 20:  # noqa: PLR2004 - ten or so
            raise AssertionError(f"{len(page)} events of 1,000 characters each in 10,000 bytes")
        read += [row.number for row in page]
    same(read, list(range(1, 41)), "the events, page by page")
    tail = [row.number for row in await store.tail("many", keep_bytes=10_000)]
    same(tail, list(range(41 - len(tail), 41)), "the newest events")
    if not 1 < len(tail) < 20:  # noqa: PLR2004 - as above
        raise AssertionError(f"{len(tail)} of the newest events of 1,000 characters each in 10,000 bytes")
    while page := await store.tail("many", before=tail[0], keep_bytes=10_000):
        tail = [*(row.number for row in page), *tail]
    same(tail, list(range(1, 41)), "the events, page by page from the newest on")
    same([row.number for row in await store.events("many", 7, keep_bytes=0)], [7], "at least one event")
    same([row.number for row in await store.tail("many", keep_bytes=0)], [40], "at least one newest event")
    one = await store.tail("many", before=40, keep_bytes=0)
    same([row.number for row in one], [39], "at least one newest event before the fortieth")


async def the_conversation_is_what_the_model_is_told_of(store: Store) -> None:
    running = Outcome("turn", "t", "running", 1, ends=False)
    work = Outcome("exec", "e", "running", 4, ends=False)
    events: Sequence[tuple[str, Body]] = (
        ("t", Prompt('"lane":"exec"', "turn", ({"lane": "exec"},))), ("t", running), ("t", Message(Kind.THOUGHT)),
        ("e", Prompt('"lane":"turn"', "exec")), ("e", work), ("e", Message(Kind.OUTPUT)),
        ("e", ended("e", 4, "exec")),
        ("t", Update({"work": "turn"})), ("t", Message(Kind.ANSWER)), ("t", ended("t", 1)),
        ("n", Update(NEW_CONVERSATION)), ("n", Update("new")), ("u", Prompt("hi", "turn")),
    )  # fmt: skip
    await added(store, "talk", *events)
    await store.commit([SetText("talk", number, "x" * 1000) for number in (6, 9)])
    wanted = [row for row in await store.events("talk", 1, keep_bytes=ALL) if in_conversation(row.body)]
    for before in (99, 13, 10, 2, 1):
        found = list(await store.conversation("talk", before=before, keep_bytes=ALL))
        same(found, [row for row in wanted if row.number < before], f"the conversation before {before}")
    same(list(await store.conversation("talk of nobody", before=9, keep_bytes=ALL)), [], "that of no session")
    read: list[int] = []
    while page := await store.conversation("talk", before=read[0] if read else 99, keep_bytes=0):
        read = [*(row.number for row in page), *read]
        same(len(page), 1, "how much of a conversation no bytes hold")
    same(read, [row.number for row in wanted], "the conversation, page by page")
    await store.commit([Retract("talk", 9)])
    found = list(await store.conversation("talk", before=99, keep_bytes=ALL))
    same([row.number for row in found], [1, 2], "the conversation, its end taken back")


async def messages_grow_until_their_owner_ends(store: Store) -> None:
    answer, output = Message(Kind.ANSWER), Message(Kind.OUTPUT)
    started = Outcome("turn", "a", "running", 1, ends=False)
    await added(
        store, "growing", ("a", answer), ("b", output), ("a", started), ("a", answer), ("a", ended("a", 1)),
        ("c", answer), ("b", ended("b", 2, "exec")), ("c", answer),
    )  # fmt: skip
    wanted = {0: [], 1: [1], 2: [1, 2], 3: [1, 2], 4: [1, 2, 4], 5: [2], 6: [2, 6], 7: [6], 8: [6, 8], 9: [6, 8]}
    for after, growing in wanted.items():
        same(list(await store.growing("growing", after)), growing, f"the messages that grow after {after}")
    same(list(await store.growing("growing of nobody", 9)), [], "the messages of no session")
    await store.commit([Retract("growing", 7)])
    same(list(await store.growing("growing", 6)), [2, 6], "the messages that grow, an end taken back")
    await store.commit([AddEvent("growing", 7, "c", ended("c", 6)), AddEvent("growing", 8, "b", ended("b", 2))])
    same(
        [list(await store.growing("growing", after)) for after in (6, 7, 8)], [[2, 6], [2], []], "and given again"
    )


RULES: Sequence[Rule] = (
    sessions_and_names,
    a_dropped_session_leaves_its_turns,
    numbers_are_contiguous,
    events_come_back_as_they_were,
    a_text_is_what_was_set_last,
    as_many_as_the_bytes_hold,
    the_conversation_is_what_the_model_is_told_of,
    messages_grow_until_their_owner_ends,
)
