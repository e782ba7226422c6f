"""`bench/crash_soak.py`, for ten kills: nothing that was acknowledged is lost, nothing runs twice, nobody misses any."""

import json
import subprocess
import sys
from pathlib import Path

KILLS = 10
SECONDS = 400  # about 17 on a machine that does nothing else

SOAK = Path(__file__).parents[1] / "bench" / "crash_soak.py"


def test_ten_kills_lose_nothing_and_repeat_nothing():
    done = subprocess.run(
        [sys.executable, SOAK, "--kills", str(KILLS), "--json"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert found["faults"] == dict.fromkeys(("lost", "two_outcomes", "run_twice", "not_run", "gaps", "texts"), 0)
    assert found["kills"] == KILLS
    assert found["outcomes"]["completed"] > 0
    assert found["resent"] > 0, "no kill came between a prompt and its answer"
    assert done.returncode == 0
