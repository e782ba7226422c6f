"""What `gateway-trio sessions` asks of a gateway, and what it writes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from gateway_trio.chat.state import Sessions, state_directory
from gateway_trio.client import Client, Refused, SessionInfo, Update
from gateway_trio.client.errors import refused
from gateway_trio.client.target import find_target
from gateway_trio.core.archive import FORMAT, Archive
from gateway_trio.core.exits import Exit
from gateway_trio.core.jsonrpc import problem
from gateway_trio.core.story import Story
from gateway_trio.ctl.outlet import Outlet, file_outlet
from gateway_trio.ctl.run import Stop, Verb
from gateway_trio.ctl.screen import Screen

__all__ = ["Names", "export", "list_", "local_names", "show"]

#: By what names `gateway-trio chat` calls the sessions of a gateway here: id to name.
Names = Callable[[], Mapping[str, str]]

#: How long a lost connection is tried to be brought back while a session is read.
_COME_BACK_SECONDS = 60.0


def local_names(url: str | None, config: Path | None) -> Names:
    """Return what tells the names that chats of this machine gave; where they cannot be read, there are none."""

    def names() -> Mapping[str, str]:
        try:
            return Sessions(state_directory(os.environ)).names(find_target(url, config, os.environ)[0])
        except OSError:
            return {}

    return names


def list_(names: Names) -> Verb:
    """List the sessions."""

    async def do(client: Client, screen: Screen, _: Stop) -> int:
        found = await client.sessions()
        known = names()
        values = [
            {"id": info.id, "name": _name(info, known), "last": info.last, "busy": info.busy} for info in found
        ]
        rows = [
            (_name(info, known) or "", info.id, str(info.last), "a turn runs" if info.busy else "")
            for info in found
        ]
        screen.listing({"sessions": values}, ("name", "id", "events", ""), rows)
        return Exit.DONE

    return Verb(do, left="nothing was changed")


def show(wanted: str, names: Names) -> Verb:
    """Show a session to a person."""

    async def do(client: Client, screen: Screen, _: Stop) -> int:
        info = await _find(client, wanted, names())
        story = Story()
        async with screen.outlet() as out:
            with client.read(info.id) as reading:
                async for update in reading:
                    await _lines(out, story.take(update))
            await _lines(out, story.end())
        return Exit.DONE

    return _long(do)


def export(wanted: str, names: Names, output: Path | None) -> Verb:
    """Write a session's events as JSON, one a line, to a file or stdout."""

    async def do(client: Client, screen: Screen, _: Stop) -> int:
        info = await _find(client, wanted, known := names())
        try:
            way = screen.outlet() if output is None else file_outlet(output)
            count = await _export(client, info, _name(info, known), screen, way, to_file=output is not None)
        except OSError as fault:
            if output is None:
                raise
            facts = {"reason": "cannot_write", "message": str(fault), "exit": int(Exit.CANNOT_WRITE)}
            screen.failure(facts, f"cannot be written: {fault}")
            return Exit.CANNOT_WRITE
        if output is not None:
            screen.note(f"{output}: {count} events of {info.id}")
        return Exit.DONE

    return _long(do)


def _long(do: Callable[[Client, Screen, Stop], Any]) -> Verb:
    left = "nothing was changed, and no file written"
    return Verb(do, limit_seconds=None, come_back_seconds=_COME_BACK_SECONDS, left=left)


async def _export(
    client: Client,
    info: SessionInfo,
    name: str | None,
    screen: Screen,
    way: AbstractAsyncContextManager[Outlet],
    *,
    to_file: bool,
) -> int:
    archive = Archive()
    async with way as out:
        await _records(out, {"kind": "session", "format": FORMAT, "id": info.id, "name": name})
        with (
            screen.bar(f"{info.id}", info.last, beside_output=not to_file) as advance,
            client.read(info.id) as reading,
        ):
            async for update in reading:
                await _records(out, *archive.take(update))
                advance(_number(update))
        await _records(out, *archive.end())
        end = {"kind": "end", "events": archive.count, "last": reading.last, "epoch": reading.epoch}
        await _records(out, end)
    return archive.count


async def _find(client: Client, wanted: str, names: Mapping[str, str]) -> SessionInfo:
    """Return the session of this id or name. Raises `Refused` where there is none, or more than one."""
    found = await client.sessions()
    for fits in (
        lambda info: info.id == wanted,
        lambda info: names.get(info.id) == wanted,
        lambda info: info.title == wanted,
    ):
        fitting = [info for info in found if fits(info)]
        if len(fitting) > 1:
            ids = ", ".join(info.id for info in fitting)
            raise _refusal("conflict", f"there are several sessions {wanted[:100]!r}; say which: {ids}")
        if fitting:
            return fitting[0]
    raise _refusal("unknown_session", f"there is no session {wanted[:100]!r} that you may see")


def _refusal(reason: str, message: str) -> Refused:
    return refused(problem(reason, message).to_wire())


def _name(info: SessionInfo, names: Mapping[str, str]) -> str | None:
    return info.title or names.get(info.id)


def _number(update: Update) -> int:
    return getattr(update, "seq", 0)


async def _lines(out: Outlet, lines: list[str]) -> None:
    if lines:
        await out.write("".join(f"{line}\n" for line in lines))


async def _records(out: Outlet, *records: Mapping[str, Any]) -> None:
    if records:  # all that is not ASCII is escaped, so a terminal is safe from it
        await out.write("".join(f"{json.dumps(record)}\n" for record in records))
