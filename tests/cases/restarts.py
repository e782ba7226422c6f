"""A gateway with its store on disk that is ended in one way or another, and started again on the same store."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
from pathlib import Path

from processes import wait_until

from harness import Program, ours_of

NOTING = Path(__file__).parent / "programs" / "noting.py"

#: The ways in which a gateway ends here, and the exit code of each.
ENDS = {"killed": -signal.SIGKILL, "shut down": 0, "restarted": 75}


def on_disk(folder: Path, config: str = "") -> str:
    """Return the config with a store in this folder, and a drain that waits for no turn if it says nothing of one."""
    drain = "" if "[drain]" in config else "[drain]\ngrace_seconds = 0.2\n"
    return f'{config}\n{drain}[store]\npath = "{folder}/gateway.db"\n'


def end(program: Program, how: str) -> None:
    """End it, and wait until it has."""
    program.signal({"killed": signal.SIGKILL, "shut down": signal.SIGTERM, "restarted": signal.SIGUSR1}[how])
    assert program.wait() == ENDS[how]


def rows(folder: Path, query: str) -> list[tuple]:
    """Return what the database has."""
    with contextlib.closing(sqlite3.connect(f"file:{folder}/gateway.db?mode=ro", uri=True)) as db:
        return db.execute(query).fetchall()


def until_stored(folder: Path, text: str, count: int = 1) -> None:
    """Wait until so many messages that begin with this text are on the disk, which has a text within a second."""
    query = "SELECT text FROM events WHERE kind = 'message'"
    wait_until(lambda: sum(found.startswith(text) for (found,) in rows(folder, query)) == count)


def noted(folder: Path) -> list[tuple[str, list]]:
    """Return the turns that `programs/noting.py` ran in all its lives: prompt and history."""
    path = folder / "turns"
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def ran(folder: Path) -> list[str]:
    return [prompt for prompt, _ in noted(folder)]


def begin(client, session: str, prompt: str = "slow", **ours) -> int:
    """Send a slow prompt and wait until its turn has said something."""
    asked = client.ask_prompt(session, prompt, **ours)
    client.until(lambda _: client.text().endswith("half "))
    return asked


def queue(client, session: str, prompt: str) -> int:
    """Send a prompt that has to wait, with itself as its key; wait until it is accepted."""
    asked = client.ask_prompt(session, prompt, key=prompt)
    client.until(lambda f: ours_of(f).get("turn", {}).get("key") == prompt)
    return asked


def come_back(program: Program, session: str, method: str = "load", **ours):
    """Return a client that loads (or resumes) the session, and what it was told about that."""
    client = program.acp()
    more = {"_meta": {"gateway-trio": ours}} if ours else {}
    result = client.call(f"session/{method}", {"sessionId": session, "cwd": "/", "mcpServers": [], **more})
    return client, result["_meta"]["gateway-trio"]


def states(client, work: str = "turn") -> dict[str, list[str]]:
    """Return the states of each turn (or exec) that the client was told, by key."""
    found: dict[str, list[str]] = {}
    for frame in client.frames:
        if (change := ours_of(frame).get(work)) is not None:
            found.setdefault(change["key"], []).append(change["state"])
    return found


def until_ended(client, *keys: str) -> None:
    """Wait for the outcome of each of these keys."""
    outcomes = {"completed", "cancelled", "interrupted", "failed"}
    client.until(lambda _: all(outcomes & set(states(client).get(key, ())) for key in keys))
