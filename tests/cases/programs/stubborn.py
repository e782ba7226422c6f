"""`gateway-trio serve` with an agent that does what the prompt says, for cases about agents that misbehave.

The first word of a prompt chooses: `shield` and `thread` block and ignore their cancellation, `freeze` blocks the
whole loop once the drain begins, `work N` needs N seconds, `restart` asks its own gateway for a restart and goes on
for ever, `term` for its end; anything else is said again. A turn that has begun says `begun`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import trio

from gateway_trio.agents import TextDelta
from gateway_trio.process import run


class Stubborn:
    async def run(self, turn, emit):
        what, _, rest = turn.text.partition(" ")
        do = {
            "shield": self.shield,
            "thread": self.thread,
            "freeze": self.freeze,
            "work": self.work,
            "restart": self.restart,
            "term": self.term,
            "hang": self.hang,
        }.get(what)
        if do is None:
            await emit(TextDelta(turn.text))
            return
        await emit(TextDelta("begun "))
        await do(turn, rest)
        await emit(TextDelta("done"))

    async def shield(self, turn, rest):
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    async def thread(self, turn, rest):
        await trio.to_thread.run_sync(threading.Event().wait)

    async def freeze(self, turn, rest):
        await turn.draining.wait()
        time.sleep(3600)  # noqa: ASYNC251 - it is what this is for

    async def work(self, turn, rest):
        await trio.sleep(float(rest))

    async def restart(self, turn, rest):
        os.kill(os.getpid(), signal.SIGUSR1)
        await trio.sleep_forever()

    async def term(self, turn, rest):
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()

    async def hang(self, turn, rest):
        await trio.sleep_forever()


_, _, _, config, _, report = sys.argv  # serve --config FILE --report FILE
sys.exit(run(Path(config), Path(report), agent=Stubborn()))
