"""A program at a pseudo-terminal: what it writes is read, and keys are pressed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from typing import Self

from harness import PATIENCE

#: Escape sequences (ECMA-48): what moves and colours.
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|[@-Z\\-_])")


class Terminal:
    """`gateway-trio` with these arguments at a terminal of its own. `text` is all that it wrote, without escapes."""

    def __init__(self, *args: str, env: dict[str, str]):
        self._master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.before = termios.tcgetattr(self._slave)
        more = {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **env}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway_trio", *args],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env={**os.environ, **more},
            start_new_session=True,
        )
        self.text = ""
        self._raw = b""
        self._seen = 0
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 65536)
            except OSError:
                return
            with self._news:
                self._raw += data
                self.text = _ESCAPES.sub("", self._raw.decode("utf-8", "replace"))
                self._news.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self._slave)  # the last one: the reader's read ends
        self._reader.join(PATIENCE)
        os.close(self._master)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode("utf-8", "surrogateescape"))

    def until(self, part: str) -> str:
        """Wait for `part` behind what was waited for before; return what was written up to there."""
        with self._news:
            there = self._news.wait_for(lambda: self.text.find(part, self._seen) >= 0, PATIENCE)
            assert there, f"no {part!r} in {self.text[self._seen :]!r}"
            start, place = self._seen, self.text.find(part, self._seen)
            self._seen = place + len(part)
            return self.text[start:place]

    def leave(self) -> int:
        """Wait for the exit; the terminal must be as it was. Return the code."""
        code = self.process.wait(PATIENCE)
        assert termios.tcgetattr(self._slave) == self.before, "the terminal is as it was"
        return code
