"""The sessions that a connection reads, each with its cursor; they take turns, a piece each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from attrs import define, field

from gateway_trio.agents import Usage
from gateway_trio.core.cursor import Cursor, Lost, Missing, Piece
from gateway_trio.core.event_log import Mark
from gateway_trio.core.jsonrpc import CLOSES
from gateway_trio.log import get_logger
from gateway_trio.sessions import Session
from gateway_trio.store import StoreUnavailable

if TYPE_CHECKING:
    from gateway_trio.connection import Connection

__all__ = ["Attachment", "Attachments"]

log = get_logger("attachments")


@define(eq=False)
class Attachment:
    """A session, a cursor on it, and frames that wait until the cursor has passed a mark."""

    session: Session
    cursor: Cursor
    due: list[tuple[Mark, str]] = field(factory=list)
    usage: Usage | None = None  #: the newest that was told
    fetching: bool = False  #: whether a page of the store is on its way to the cursor

    def take_due(self) -> list[str]:
        ready = [frame for mark, frame in self.due if self.cursor.passed(mark)]
        if ready:
            self.due = [(mark, frame) for mark, frame in self.due if not self.cursor.passed(mark)]
        return ready


class Attachments:
    """Pulls frames for one connection. `render` makes frames of a piece, `idle` of a session with nothing new.

    What a cursor misses is fetched from the store by a task of the connection, one for each session at a time; the
    other sessions go on meanwhile.
    """

    def __init__(
        self,
        connection: Connection,
        room: int,
        render: Callable[[Attachment, Piece | Lost], list[str]],
        idle: Callable[[Attachment], list[str]] = lambda _: [],
    ) -> None:
        self._connection = connection
        self._room = room
        self._render = render
        self._idle = idle
        self._turns: deque[Attachment] = deque()
        self._by_id: dict[str, Attachment] = {}
        self._ready: deque[str] = deque()

    def get(self, session_id: str) -> Attachment | None:
        return self._by_id.get(session_id)

    def sessions(self) -> list[Session]:
        return [attachment.session for attachment in self._turns]

    def attach(self, session: Session, cursor: Cursor) -> Attachment:
        """Read a session from this cursor on, in place of an earlier one, for whose marks it is waited now."""
        earlier = self._by_id.get(session.id)
        self.drop(session.id)
        due = [] if earlier is None else earlier.due
        attachment = self._by_id[session.id] = Attachment(session, cursor, due)
        self._turns.append(attachment)
        session.join(self._connection)
        self._connection.poke()
        return attachment

    def drop(self, session_id: str) -> None:
        """Read a session no more."""
        attachment = self._by_id.pop(session_id, None)
        if attachment is not None:
            self._turns.remove(attachment)
            attachment.session.leave(self._connection)

    def clear(self) -> None:
        for session_id in list(self._by_id):
            self.drop(session_id)

    @property
    def fetching(self) -> bool:
        """Whether there may be more to pull as soon as the store has answered."""
        return any(attachment.fetching for attachment in self._turns)

    def pull(self) -> str | None:
        """Return the next frame, None if there is nothing now."""
        if not self._ready:
            for _ in range(len(self._turns)):
                attachment = self._turns[0]
                self._turns.rotate(-1)
                self._ready.extend(self._frames(attachment))
                if self._ready:
                    break
        return self._ready.popleft() if self._ready else None

    def _frames(self, attachment: Attachment) -> list[str]:
        if attachment.fetching:
            return []
        frames = attachment.take_due()
        while not frames:
            piece = attachment.cursor.pull(self._room)
            if piece is None:
                return self._idle(attachment)
            if isinstance(piece, Missing):
                if (page := attachment.session.kept_page(piece)) is not None:
                    attachment.cursor.give(piece, page)
                    continue
                attachment.fetching = True
                self._connection.nursery.start_soon(self._fetch, attachment, piece)
                return []
            frames = self._render(attachment, piece) + attachment.take_due()
        return frames

    async def _fetch(self, attachment: Attachment, asked: Missing) -> None:
        try:
            attachment.cursor.give(asked, await attachment.session.page(asked))
        except StoreUnavailable as fault:
            log.warning("not read", session=attachment.session.id, start=asked.start, error=str(fault))
            self._connection.close(CLOSES["internal"])
        finally:
            attachment.fetching = False
            self._connection.poke()
