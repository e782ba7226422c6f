"""`check_store` finds what is wrong with a store: each of these breaks one promise, and is told so."""

import math

import pytest
import trio
from attrs import evolve

from gateway_trio.memory_store import MemoryStore
from gateway_trio.store import AddEvent, Late, MoveTurn, Retract, SetText, StoreUnavailable
from gateway_trio.testing import check_store


class Sound(MemoryStore):
    def __init__(self):
        super().__init__(keep_events=10_000)


class HalfDone(Sound):
    """Carries out what stands before the change that is refused."""

    async def commit(self, changes):
        for change in changes:
            await super().commit([change])


class Lenient(Sound):
    """Takes what it must refuse, and does nothing."""

    async def commit(self, changes):
        try:
            await super().commit(changes)
        except StoreUnavailable:
            return


class Deaf(Sound):
    """Passes over one kind of change."""

    kind = object

    async def commit(self, changes):
        await super().commit([change for change in changes if not isinstance(change, self.kind)])


class NeverTakesBack(Deaf):
    kind = Retract


class NeverLate(Deaf):
    kind = Late


class NoTexts(Deaf):
    kind = SetText


class AlwaysLate(Sound):
    """Takes a condition for a wish."""

    async def commit(self, changes):
        await super().commit([Late(c) if isinstance(c, MoveTurn) else c for c in changes])


class OpenToAll(Sound):
    """Shows users what is for admins."""

    async def commit(self, changes):
        await super().commit([evolve(c, admin=False) if isinstance(c, AddEvent) else c for c in changes])


class OldestFirst(Sound):
    async def sessions(self, owner, *, skip, limit):
        return (await super().sessions(owner, skip=0, limit=10_000))[::-1][skip : skip + limit]


class NoPages(Sound):
    async def events(self, session_id, start, *, keep_bytes):
        return await super().events(session_id, start, keep_bytes=1 << 40)


class TailOfNothing(Sound):
    async def tail(self, session_id, *, before=None, keep_bytes):
        return (await super().tail(session_id, before=before, keep_bytes=keep_bytes))[:-1]


class OnlyTheEnd(Sound):
    async def tail(self, session_id, *, before=None, keep_bytes):
        return await super().tail(session_id, keep_bytes=keep_bytes) if before is None else []


class NoConversation(Sound):
    async def conversation(self, session_id, *, before, keep_bytes):
        return []


class ConversationOfAll(Sound):
    """Counts quick commands in."""

    async def conversation(self, session_id, *, before, keep_bytes):
        return await self.tail(session_id, before=before, keep_bytes=keep_bytes)


class ConversationWithoutPages(Sound):
    async def conversation(self, session_id, *, before, keep_bytes):
        return await super().conversation(session_id, before=before, keep_bytes=1 << 40)


class NothingGrows(Sound):
    async def growing(self, session_id, after):
        return []


class NewestLast(Sound):
    async def keyed(self, session_id, limit, *, since=math.inf):
        return (await super().keyed(session_id, limit, since=since))[::-1]


class ForgetsTheDay(Sound):
    async def keyed(self, session_id, limit, *, since=math.inf):
        return await super().keyed(session_id, limit)


class NothingWaits(Sound):
    async def unfinished(self):
        return []


class OwnsNothing(Sound):
    async def owners(self):
        return {}


class SaysItIsDurable(Sound):
    durable = True


class Shared(Sound):
    """A durable one, without a lock, that forgets: what is opened again has nothing."""

    durable = True
    there = 0

    async def open(self):
        type(self).there += 1
        if type(self).there == 2:
            raise StoreUnavailable("somebody has it")


class Shuffled(Sound):
    """Does not keep the order of the calls."""

    async def commit(self, changes):
        await trio.lowlevel.checkpoint()
        await super().commit(changes)


BROKEN = [
    HalfDone, Lenient, NeverTakesBack, NeverLate, NoTexts, AlwaysLate, OpenToAll, OldestFirst, NoPages, TailOfNothing, OnlyTheEnd, ForgetsTheDay,
    NoConversation, ConversationOfAll, ConversationWithoutPages,
    NothingGrows, NewestLast, NothingWaits, OwnsNothing, SaysItIsDurable, Shared, Shuffled,
]  # fmt: skip


async def test_a_sound_one_passes():
    await check_store(Sound)


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_broken_one_does_not(broken):
    with pytest.raises((AssertionError, StoreUnavailable, ExceptionGroup)) as caught:
        await check_store(broken)
    if not broken.durable:
        assert caught.value.__notes__[0].startswith("the rule: ")
