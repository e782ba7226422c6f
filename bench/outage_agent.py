"""`gateway-trio serve` with an agent whose backend is down while the file `$BENCH_DOWN` exists."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from gateway_trio.agents import BackendUnavailable, Emit, TextDelta, Turn
from gateway_trio.process import run

DOWN = os.environ["BENCH_DOWN"]


def ask_backend() -> None:
    if os.path.exists(DOWN):  # noqa: PTH110 - the cheapest way to ask
        raise BackendUnavailable("503 from the model")


class OutageAgent:
    async def run(self, turn: Turn, emit: Emit) -> None:
        ask_backend()
        await emit(TextDelta(turn.text))

    async def probe(self) -> None:
        ask_backend()


if __name__ == "__main__":
    _, _, _, config, _, report = sys.argv  # serve --config FILE --report FILE
    sys.exit(run(Path(config), Path(report), agent=OutageAgent()))
