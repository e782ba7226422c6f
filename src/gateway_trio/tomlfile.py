"""A config's file: its text, who may write it, and its tree."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import tomli

from gateway_trio.strict import Fault
from gateway_trio.tables import ConfigError

__all__ = ["parse_toml", "read_text"]


def read_text(path: str | Path) -> tuple[str, tuple[Fault, ...]]:
    """Return a file's text, and a fault if somebody else may write it. Raises `ConfigError`."""
    try:
        with Path(path).open("rb") as file:
            status = os.fstat(file.fileno())
            text = file.read().decode()
    except OSError as error:
        raise ConfigError((Fault(str(path), error.strerror or str(error)),)) from error
    except UnicodeDecodeError as error:
        raise ConfigError((Fault(str(path), f"is not UTF-8, at byte {error.start}"),)) from error
    mode = stat.S_IMODE(status.st_mode)
    private_group = status.st_gid == status.st_uid  # as a umask of 002 expects
    if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and not private_group):
        return text, (Fault(str(path), f"others may write it (mode {mode:04o}): chmod go-w"),)
    return text, ()


def parse_toml(text: str, source: str) -> dict[str, Any]:
    """Return the tree of a TOML text. Raises `ConfigError`."""
    try:
        return tomli.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # ValueError: also a number of more digits than Python takes
        raise ConfigError((Fault(source, str(error)),)) from error
