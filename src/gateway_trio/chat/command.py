"""`gateway-trio chat`. What it needs is imported when it runs: `serve` has no use for it.

Exit codes: 0 it was left, or the input ended and every prompt completed; 1 a prompt of a pipe did not complete;
65 a line of a pipe is too long; 69 the gateway cannot be reached, or the connection is over; 73 the answers cannot
be written; 77 the token is wrong or missing; 78 the URL, the token or the config cannot be used; 130 and 143
SIGINT and SIGTERM. (65 to 78 are those of sysexits.h.)
"""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from gateway_trio.chat.state import Sessions
    from gateway_trio.client import Client, Session

__all__ = ["chat"]

_DATA, _UNAVAILABLE, _NO_PERMISSION, _CONFIG = 65, 69, 77, 78
_LAST = "main"


def chat(
    *,
    url: Annotated[str | None, Parameter(help="The gateway, ws://HOST:PORT. Else $GATEWAY_TRIO_URL.")] = None,
    session: Annotated[str | None, Parameter(help="A session's name or id; a new name makes a session.")] = None,
    new: Annotated[bool, Parameter(help="A new session, in place of the one of that name.")] = False,
    config: Annotated[Path | None, Parameter(help="The gateway's config: its host and port are taken.")] = None,
) -> int:
    """Talk to a gateway: at a terminal with a line to edit, from a pipe line by line. $GATEWAY_TRIO_TOKEN."""
    from gateway_trio.standard_streams import run_program  # noqa: PLC0415 - see above

    return run_program(partial(_start, url, session or _LAST, config, new=new), nobody_reads=1)


def _start(url: str | None, session: str, config: Path | None, *, new: bool) -> int:
    import trio  # noqa: PLC0415 - see above

    from gateway_trio.client.address import parse_url  # noqa: PLC0415
    from gateway_trio.client.connecting import check_token  # noqa: PLC0415
    from gateway_trio.client.target import find_target  # noqa: PLC0415
    from gateway_trio.config import ConfigError  # noqa: PLC0415

    try:
        target, token = find_target(url, config, os.environ)
    except ConfigError as fault:
        print(fault, file=sys.stderr)
        return _CONFIG
    try:
        parse_url(target)
        if token is not None:
            check_token(token)
    except ValueError as fault:
        print(fault, file=sys.stderr)
        return _CONFIG
    # __main__ blocked them, for `serve`.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1})
    return trio.run(_run, target, token, session, new)


async def _run(url: str, token: str | None, name: str, new: bool) -> int:
    import trio  # noqa: PLC0415

    ended_by: list[int] = []
    code = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_heed_signals, nursery.cancel_scope, ended_by)
        code = await _talk(url, token, name, new)
        nursery.cancel_scope.cancel()
    return 128 + ended_by[0] if ended_by else code


async def _heed_signals(scope: object, ended_by: list[int]) -> None:
    """Leave, and leave the terminal as it was, where somebody ends us."""
    import trio  # noqa: PLC0415

    assert isinstance(scope, trio.CancelScope)  # noqa: S101 - for mypy
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async for number in signals:
            ended_by.append(number)
            scope.cancel()


async def _talk(url: str, token: str | None, name: str, new: bool) -> int:
    from gateway_trio.chat.pipe import LineTooLong  # noqa: PLC0415
    from gateway_trio.client import ClientError, Unauthorized, connect  # noqa: PLC0415

    try:
        directory = _state()
        async with connect(url, token=token) as client:
            return await _chat(client, url, name, new, directory)
    except Unauthorized as error:
        print(f"{url}: {error}", file=sys.stderr)
        return _NO_PERMISSION
    except ClientError as error:
        print(f"{url}: {error}", file=sys.stderr)
        return _UNAVAILABLE
    except LineTooLong as error:
        print(error, file=sys.stderr)
        return _DATA


def _state() -> Path | None:
    """Return where to keep what outlasts a run; without such a place the chat works all the same."""
    from gateway_trio.chat.state import state_directory  # noqa: PLC0415

    try:
        return state_directory(os.environ)
    except OSError as fault:
        print(f"· nothing is kept of this chat: {fault}", file=sys.stderr)
        return None


async def _chat(client: Client, url: str, name: str, new: bool, directory: Path | None) -> int:
    from gateway_trio.chat.state import History, Sessions  # noqa: PLC0415

    finder = Finder(client, Sessions(directory), url, name, new)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        from gateway_trio.chat.pipe import pipe  # noqa: PLC0415

        return 0 if await pipe(await finder.find(), sys.stdin.fileno(), sys.stdout) else 1
    from gateway_trio.chat.talk import Talk  # noqa: PLC0415
    from gateway_trio.chat.terminal import Terminal  # noqa: PLC0415

    talk = Talk(client, await finder.find(), finder.make)
    await talk.run(Terminal(None if directory is None else History(directory).path, talk.commands))
    return 0


class Finder:
    """Finds the session to talk in, or makes one.

    Args:
        client: the connection.
        sessions: which ids went by which names here.
        url: which gateway that is.
        name: a session's id, a name that the gateway has for one, or one that was used here.
        new: whether to make one all the same.

    """

    def __init__(self, client: Client, sessions: Sessions, url: str, name: str, new: bool) -> None:
        self._client = client
        self._sessions = sessions
        self._url = url
        self._name = name
        self._new = new

    async def find(self) -> Session:
        """Return the session, attached, from its end on. Raises `ClientError`s."""
        if self._new:
            return await self.make()
        known = await self._client.sessions()
        remembered = self._sessions.find(self._url, self._name)
        for info in known:
            if info.id in (self._name, remembered):
                return await self._client.resume(info.id)
        for info in known:
            if info.title == self._name:
                return await self._client.resume(info.id)
        return await self.make()

    async def make(self) -> Session:
        """Return a new session, which goes by the name from now on."""
        session = await self._client.new_session()
        self._sessions.remember(self._url, self._name, session.id)
        return session
