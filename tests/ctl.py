"""`gateway-trio ctl` as a process of its own, for tests against real gateways."""

import json
import os
import pty
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
import time

from harness import PATIENCE

SECRETS = ("GATEWAY_TRIO_URL", "GATEWAY_TRIO_TOKEN", "GATEWAY_TRIO_EXEC_ID")


def environment(program=None, token=None, **more):
    env = {name: value for name, value in os.environ.items() if name not in SECRETS}
    if program is not None:
        env["GATEWAY_TRIO_URL"] = f"ws://127.0.0.1:{program.port}"
    if token is not None:
        env["GATEWAY_TRIO_TOKEN"] = token
    return {**env, "TERM": "xterm", **more}


def ctl(program, *args, token=None, **more):
    """Run it to its end; return the code, stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "gateway_trio", "ctl", *args],
        env=environment(program, token, **more),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=3 * PATIENCE,
    )
    return done.returncode, done.stdout, done.stderr


def ctl_json(program, *args, **more):
    """Run it with --json; return the code and the one object."""
    code, out, _ = ctl(program, *args, "--json", **more)
    (line,) = out.splitlines()
    return code, json.loads(line)


class Ctl:
    """One that runs on: its lines of stderr come as they are written. Use it as a context manager."""

    def __init__(self, program, *args, token=None):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway_trio", "ctl", *args],
            env=environment(program, token),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines = []
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            self._lines.put(line)
        self._lines.put(None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        self.process.stdout.close()
        self.process.stderr.close()

    def until(self, part):
        """Wait for a line of stderr that holds this."""
        while True:
            line = self._lines.get(timeout=PATIENCE)
            assert line is not None, f"it ended without {part!r}: {self.lines}"
            self.lines.append(line)
            if part in line:
                return line

    def interrupt(self, number=signal.SIGINT):
        self.process.send_signal(number)

    def end(self):
        """Wait for its end; return the code and stdout."""
        code = self.process.wait(3 * PATIENCE)
        self._reader.join(PATIENCE)
        while (line := self._lines.get_nowait()) is not None:
            self.lines.append(line)
        return code, self.process.stdout.read()


class OnTerminal:
    """One whose terminal is ours. Use it as a context manager."""

    def __init__(self, program, *args):
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gateway_trio", "ctl", *args],
            env=environment(program),
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self._ours)

    def until(self, part):
        """Read until this was written."""
        end = time.monotonic() + PATIENCE
        while part not in self.seen:
            ready, _, _ = select.select([self._ours], [], [], max(0, end - time.monotonic()))
            assert ready, f"{part!r} did not come: {self.seen!r}"
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # Linux says EIO where the other side is closed
                data = b""
            assert data, f"it ended without {part!r}: {self.seen!r}"
            self.seen += data.decode(errors="replace")

    def press(self, keys):
        os.write(self._ours, keys)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
