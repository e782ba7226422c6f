"""Runs the program again and again, each time signalled at another moment shortly before it opens."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from gateway_trio.process import run

#: On the way to `open`, functions at whose call the signal comes.
MOMENTS = ("open_tcp_listeners", "getaddrinfo", "bind", "_address", "opened", "started")
RUNS = 8  # of each; in which order Trio runs what is ready is chance

_, number, config, report = sys.argv
NUMBER = signal.Signals[number]


def run_signalled_at(moment: str) -> int:
    def profile(frame, event, arg):
        if event == "call" and frame.f_code.co_name == moment:
            sys.setprofile(None)
            os.kill(os.getpid(), NUMBER)

    signal.pthread_sigmask(signal.SIG_BLOCK, [NUMBER])
    sys.setprofile(profile)
    try:
        return run(Path(config), Path(report))
    finally:
        sys.setprofile(None)


codes = {run_signalled_at(moment) for moment in MOMENTS for _ in range(RUNS)}
print("codes", sorted(codes), flush=True)
