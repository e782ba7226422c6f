"""Case 58: a client that never reads while a turn streams 100 MB."""

import json
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from processes import descriptors, most_memory, wait_until
from raw import CLOSE, TEXT, Raw, close, frame
from websockets.sync.client import connect

from harness import Acp, ours_of

PATIENCE = 60.0
BOUND = 100 * 2**20  # what 100 MB would pass in any form in which all of it were kept


class Flood:
    """`programs/fast.py`, ready when made."""

    def __init__(self, close_seconds, *store):
        program = Path(__file__).parent / "programs" / "fast.py"
        self.process = subprocess.Popen(
            [sys.executable, "-u", program, str(close_seconds), *store],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines = queue.Queue()
        self.log = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = int(self.wait(str.isdigit))
        self.pid = self.process.pid

    def _read(self):
        with self.process.stdout as pipe:
            for line in pipe:
                self._lines.put(line.strip())

    def wait(self, test):
        """Return the first line, of those that came or come, for which the test holds."""
        for line in self.log:
            if test(line):
                return line
        while not test(line := self._lines.get(timeout=PATIENCE)):
            self.log.append(line)
        self.log.append(line)
        return line

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)

    def acp(self):
        client = Acp(connect(f"ws://127.0.0.1:{self.port}/acp", max_size=2**20).__enter__())
        client.initialize()
        return client


def flooded(flood):
    """Connect one that asks for the flood and reads nothing of it; return it, and the session's id."""
    raw = Raw(flood.port, "/acp", receive_buffer=4096)
    ask(raw, 1, "initialize", {"protocolVersion": 1, "clientCapabilities": {"_meta": {"gateway-trio": {}}}})
    ask(raw, 2, "session/new", {"cwd": "/", "mcpServers": []})
    session = None
    while session is None:
        session = json.loads(raw.until(TEXT)).get("result", {}).get("sessionId")
    ask(raw, 3, "session/prompt", {"sessionId": session, "prompt": [{"type": "text", "text": "flood"}]})
    return raw, session


def ask(raw, id_, method, params):
    raw.send(frame(TEXT, json.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params}).encode()))


def unhurt(client, session):
    """Assert that the turn ended well, and that its text, as far as it is kept, is right."""
    result = client.call("session/load", {"sessionId": session, "cwd": "/"})
    assert result["_meta"]["gateway-trio"]["reason"] == "too_old"
    ended = client.until_state("completed")
    assert ours_of(ended)["turn"]["state"] == "completed"
    text = client.text()
    assert 2**22 < len(text) < 2**24
    assert set(text.splitlines()) == {"0123456789abcde"}
    # And the session goes on.
    assert client.prompt(session, "hello")["stopReason"] == "end_turn"


@pytest.mark.parametrize("reads_again", [True, False])
def test_case_58_one_that_never_reads_is_closed_and_the_turn_is_unhurt(reads_again):
    with Flood(close_seconds=20 if reads_again else 0.5) as flood, flood.acp() as other:
        before, open_before = most_memory(flood.pid), descriptors(flood.pid)
        raw, session = flooded(flood)
        with raw:
            flood.wait(lambda line: line == "over")
            # Nothing of the turn waited for the client, and others are served.
            assert other.call("_gateway-trio/status")["phase"] == "open"
            flood.wait(lambda line: "slow client" in line)
            if reads_again:
                frames = []
                while not frames or frames[-1][0] != CLOSE:
                    frames.append(raw.frame())
                *texts, last = frames
                assert int.from_bytes(last[1][:2], "big") == 4101
                raw.send(close(4101))
                assert raw.frame() is None
                told = [json.loads(text) for opcode, text in texts if opcode == TEXT]
                assert told[-1]["method"] == "_gateway-trio/goodbye"
                assert told[-1]["params"]["code"] == 4101
                assert told[-1]["params"]["reconnectAfterMs"] > 0
                assert sum(len(text) for _, text in texts) < 16 * 2**20
            wait_until(lambda: other.call("_gateway-trio/status")["connections"] == 1)
            wait_until(lambda: descriptors(flood.pid) <= open_before)
        unhurt(other, session)
        assert most_memory(flood.pid) - before < BOUND


def test_case_58_ten_of_them_on_one_session():
    with Flood(close_seconds=0.5) as flood, flood.acp() as other:
        before = most_memory(flood.pid)
        raw, session = flooded(flood)
        raws = [raw]
        try:
            for _ in range(9):
                raw = Raw(flood.port, "/acp", receive_buffer=4096)
                raws.append(raw)
                ask(raw, 1, "initialize", {"protocolVersion": 1})
                ask(raw, 2, "session/load", {"sessionId": session, "cwd": "/"})
            flood.wait(lambda line: line == "over")
            wait_until(lambda: other.call("_gateway-trio/status")["connections"] == 1)
        finally:
            for raw in raws:
                raw.hang_up()
        unhurt(other, session)
        assert most_memory(flood.pid) - before < BOUND


def test_case_58_with_a_store_behind_it_nothing_of_the_turn_is_lost(tmp_path):
    """Not to who comes later, not after a kill; and neither the flood nor who loads it takes its memory."""
    path = tmp_path / "gateway.db"
    with Flood(0.5, path) as flood, flood.acp() as other:
        before = most_memory(flood.pid)
        raw, session = flooded(flood)
        with raw:
            flood.wait(lambda line: line == "over")
            flood.wait(lambda line: "slow client" in line)
        whole(other, session)
        assert other.prompt(session, "hello")["stopReason"] == "end_turn"
        assert most_memory(flood.pid) - before < BOUND
    with Flood(0.5, path) as flood, flood.acp() as other:
        before = most_memory(flood.pid)
        whole(other, session)
        assert most_memory(flood.pid) - before < BOUND


def whole(client, session):
    """Assert that who loads the session is sent all of it."""
    result = client.call("session/load", {"sessionId": session, "cwd": "/"})
    assert result["_meta"]["gateway-trio"]["recovered"] is True
    client.until_state("completed")
    pieces = [
        frame["params"]["update"]["content"]["text"]
        for frame in client.frames
        if (frame.get("params") or {}).get("update", {}).get("sessionUpdate") == "agent_message_chunk"
    ]
    assert "".join(pieces).startswith("0123456789abcde\n" * (100 * 2**20 // 16))
