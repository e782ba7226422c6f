"""What the chat keeps between two runs, under `$XDG_STATE_HOME/gateway-trio` (XDG Base Directory, 0.8).

The lines that were typed, and for each gateway which session goes by which name. Both are for their owner alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["History", "Sessions", "state_directory"]

#: Sessions that are remembered, the newest ones.
_MOST_SESSIONS = 200
#: Of what was typed, in bytes; where there is more, the newer half is kept.
_MOST_HISTORY = 1024 * 1024


def state_directory(environ: Mapping[str, str]) -> Path:
    """Return the directory, made if it was not there. Raises OSError."""
    home = Path(environ.get("HOME") or Path.home())
    named = Path(environ.get("XDG_STATE_HOME") or "")
    base = named if named.is_absolute() else home / ".local" / "state"  # as the specification says
    directory = base / "gateway-trio"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


class History:
    """The file with what was typed, mode 0600; `path` is for the line editor."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "history"
        descriptor = os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600)
        with open(descriptor, "r+b") as file:  # noqa: PTH123 - a descriptor has no path
            os.fchmod(descriptor, 0o600)
            lines = file.read()
            if len(lines) > _MOST_HISTORY:
                half = lines[lines.index(b"\n", len(lines) // 2) + 1 :]
                file.seek(0)
                file.truncate()
                file.write(half)


class Sessions:
    """Names of sessions, by gateway: which id went by a name here. Without a directory (None) it is not kept."""

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / "sessions.json"
        self._ids: dict[str, str] = {}
        if self._path is None:
            return
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self._path.read_text(encoding="utf-8"))
            if isinstance(found, dict):
                self._ids = {str(name): str(id_) for name, id_ in found.items()}

    def find(self, url: str, name: str) -> str | None:
        """Return the id, None if there is none."""
        return self._ids.get(f"{url} {name}")

    def names(self, url: str) -> dict[str, str]:
        """Return what the sessions of a gateway are called here: id to name."""
        return {id_: key[len(url) + 1 :] for key, id_ in self._ids.items() if key.startswith(f"{url} ")}

    def remember(self, url: str, name: str, id_: str) -> None:
        """Keep an id. A disk that does not take it is told nobody: the session is made again next time."""
        self._ids.pop(f"{url} {name}", None)
        self._ids[f"{url} {name}"] = id_
        self._ids = dict(list(self._ids.items())[-_MOST_SESSIONS:])
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            with tempfile.NamedTemporaryFile("w", dir=self._path.parent, delete=False, encoding="utf-8") as file:
                json.dump(self._ids, file, indent=1)  # a temporary file is its owner's alone
            Path(file.name).replace(self._path)
