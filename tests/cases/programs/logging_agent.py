"""A gateway whose agent fails in every turn, and whose library says something in each, with a logger of its own."""

import logging
import sys
from pathlib import Path

from gateway_trio.process import run

library = logging.getLogger("some.library")


class Failing:
    async def run(self, turn, emit):
        secret = "local-" + "variable"  # what a pretty traceback would show
        library.warning("number %s", turn.text)
        raise ValueError(f"it broke {turn.text}", len(secret))


if __name__ == "__main__":
    arguments = dict(zip(sys.argv[2::2], map(Path, sys.argv[3::2]), strict=True))
    sys.exit(run(arguments["--config"], arguments.get("--report"), agent=Failing()))
