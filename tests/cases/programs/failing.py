"""`gateway-trio serve` with an agent whose backend is down while the file `down` stands in the current directory.

What is in the file says how: nothing or a number of seconds is a 503 with that `Retry-After`, `401` a rejection,
`stuck` a 503 whose probes ignore their cancellation. A prompt `poison` fails always, one `long` takes as long as it is let; `hang` hangs while the backend is down.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from gateway_trio.agents import BackendRejected, BackendUnavailable, TextDelta
from gateway_trio.process import run

DOWN = Path("down")


def ask_backend() -> None:
    if not DOWN.exists():
        return
    how = DOWN.read_text().strip()
    if how == "401":
        raise BackendRejected("401 from the model: this key is not valid")
    seconds = float(how) if how and how != "stuck" else None
    raise BackendUnavailable("503 from the model", retry_after_seconds=seconds)


class Failing:
    async def run(self, turn, emit):
        if turn.text == "poison":
            raise BackendUnavailable("500 from the model")
        if turn.text == "long":
            await emit(TextDelta("begun "))
            await trio.sleep_forever()
        ask_backend()
        await emit(TextDelta(turn.text))

    async def probe(self):
        if DOWN.exists() and DOWN.read_text() == "stuck":
            with trio.CancelScope(shield=True):
                await trio.sleep_forever()
        ask_backend()


_, _, _, config, _, report = sys.argv  # serve --config FILE --report FILE
sys.exit(run(Path(config), Path(report), agent=Failing()))
