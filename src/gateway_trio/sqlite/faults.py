"""What SQLite's errors mean to an operator: one sentence that names the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

__all__ = ["sentence"]

#: By the primary code, the low byte of an error's (sqlite.org/rescode.html).
_MEANINGS: Mapping[int, str] = MappingProxyType(
    {
        sqlite3.SQLITE_FULL: "there is no room left for it",
        sqlite3.SQLITE_IOERR: "its disk fails",
        sqlite3.SQLITE_BUSY: "another program holds it locked",
        sqlite3.SQLITE_LOCKED: "another program holds it locked",
        sqlite3.SQLITE_CORRUPT: "it is damaged, and was left as it is",
        sqlite3.SQLITE_NOTADB: "it is no database of ours, and was left as it is",
        sqlite3.SQLITE_READONLY: "it cannot be written",
        sqlite3.SQLITE_PERM: "it may not be opened",
        sqlite3.SQLITE_CANTOPEN: "it cannot be opened",
        sqlite3.SQLITE_TOOBIG: "one of the texts is too long for it",
    }
)


def sentence(path: Path, error: sqlite3.Error | OSError) -> str:
    """Return what is wrong with the database at `path`: in words, and as SQLite or the system says it."""
    said = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
    name = getattr(error, "sqlite_errorname", None)
    meaning = _MEANINGS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "it cannot be used")
    return f"the store {path}: {meaning} ({said}{f', {name}' if name else ''})"
