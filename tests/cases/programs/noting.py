"""`gateway-trio serve` with an agent that notes each turn in the file `turns` beside the config, as a line of JSON.

A prompt that begins with `slow` says `half ` and then goes on for ever; `fail` fails; others are answered at once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import trio

from gateway_trio.agents import AgentError, TextDelta
from gateway_trio.process import run

_, _, _, config, _, report = sys.argv  # serve --config FILE --report FILE


class Noting:
    async def run(self, turn, emit):
        history = [[item.role, item.text, item.interrupted] for item in turn.history]
        with (Path(config).parent / "turns").open("a") as notes:
            notes.write(json.dumps([turn.text, history]) + "\n")
        if turn.text == "fail":
            raise AgentError("as it was told to")
        if turn.text.startswith("slow"):
            await emit(TextDelta("half "))
            await trio.sleep_forever()
        await emit(TextDelta(f"to {turn.text}"))


sys.exit(run(Path(config), Path(report), agent=Noting()))
