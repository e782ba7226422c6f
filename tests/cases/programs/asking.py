"""`gateway-trio serve` with the agent of examples/careful.py, which asks before it does what the prompt says."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "examples"))

from careful import Careful

from gateway_trio.process import run

_, _, _, config, _, report = sys.argv  # serve --config FILE --report FILE
sys.exit(run(Path(config), Path(report), agent=Careful()))
