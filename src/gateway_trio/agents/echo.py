"""The agent that says the prompt again: the default, and the example to copy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Self

import trio

from gateway_trio.agent_tables import EchoAgentConfig
from gateway_trio.agents import Emit, TextDelta, Turn

__all__ = ["EchoAgent"]


#: A word with the white space before it. It begins where that begins and nowhere within: else a long run of it
#: that no word follows would be read anew from each of its characters.
_WORD = re.compile(r"(?<!\s)\s*+\S++")


class EchoAgent:
    """Stream the prompt back, word by word, so that a long turn is easy to make.

    `words_per_second` sets the pace. Cancelling stops it between two words.
    """

    def __init__(self, words_per_second: float = 50.0) -> None:
        self._pause = 1 / words_per_second

    @classmethod
    def from_config(cls, config: EchoAgentConfig, _environ: Mapping[str, str]) -> Self:
        """Make the agent of `[agent]`."""
        return cls(config.words_per_second)

    async def run(self, turn: Turn, emit: Emit) -> None:
        start = trio.current_time()
        for count, word in enumerate(_WORD.findall(turn.text) or [turn.text]):
            await trio.sleep_until(start + count * self._pause)
            await emit(TextDelta(word))
