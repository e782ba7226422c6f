"""All of it at once, as the issue that began this project asks: every kind of client, work in every phase."""

from __future__ import annotations

import asyncio
import socket
import threading
from pathlib import Path

import pytest
from acp import PROTOCOL_VERSION, RequestError, connect_to_agent, text_block
from acp.ws.client import create_websocket_stream

from harness import PATIENCE, Program, alive, ours_of

CONFIG = """
[drain]
grace_seconds = 3
cleanup_seconds = 4
exec_seconds = 12
close_seconds = 3
stop_budget_seconds = 40
[quick_commands.nap]
type = "exec"
command = "echo $$; sleep 5; echo rested"
[quick_commands.hi]
type = "exec"
command = "echo hi"
"""
STUBBORN = Path(__file__).parent / "cases" / "programs" / "stubborn.py"


class Stock:
    """The stock Python ACP SDK, unchanged, with a prompt that takes a minute; in a thread of its own."""

    def __init__(self, port: int) -> None:
        self.runs = threading.Event()
        self.error: RequestError | None = None
        self.code: int | None = None
        self._port = port
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._thread.start()

    async def session_update(self, session_id, update, **_) -> None:
        if getattr(update, "session_update", "") == "agent_message_chunk":
            self.runs.set()

    def on_connect(self, conn) -> None:
        pass

    async def _main(self) -> None:
        stream = await create_websocket_stream(f"ws://127.0.0.1:{self._port}/acp")
        agent = connect_to_agent(self, stream)
        await agent.initialize(protocol_version=PROTOCOL_VERSION)
        session = await agent.new_session(cwd="/", mcp_servers=[])
        try:
            await agent.prompt(session_id=session.session_id, prompt=[text_block("work 60")])
        except RequestError as error:
            self.error = error
        async with asyncio.timeout(PATIENCE):
            await stream._ws.wait_closed()
        self.code = stream._ws.close_code
        await agent.close()

    def join(self) -> None:
        self._thread.join(2 * PATIENCE)
        assert not self._thread.is_alive()


def never_reads(port: int) -> socket.socket:
    """Connect to `/chat`, send a prompt, and never take a byte."""
    stranger = socket.create_connection(("127.0.0.1", port))
    stranger.sendall(
        b"GET /chat?session=deaf HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    return stranger


def test_everything_at_once(tmp_path):
    with (
        Program(tmp_path, CONFIG, script=STUBBORN) as program,
        program.chat() as chat,
        program.acp() as acp,
        never_reads(program.port),
    ):
        stock = Stock(program.port)
        assert stock.runs.wait(PATIENCE)
        chat.send("shield")  # a turn that ignores its cancellation, so that `cancelling` lasts
        session = acp.new_session()
        nap = acp.ask_prompt(session, "/nap")
        acp.until(lambda f: acp.text().endswith("\n"))
        pid = int(acp.text())
        while '"connections": 4' not in (status := program.get("/livez")[1]) or '"turns": 2' not in status:
            pass

        program.signal()
        acp.until(lambda f: f.get("params", {}).get("phase") == "cancelling")
        hi = acp.ask_prompt(session, "/hi")
        assert acp.answer(hi)["_meta"]["gateway-trio"]["exitCode"] == 0
        assert acp.answer(nap)["_meta"]["gateway-trio"]["status"] == "exited"
        assert "rested\n" in acp.text()
        assert "hi\n" in acp.text()
        ends = [ours_of(f)["exec"]["state"] for f in acp.frames if "exec" in ours_of(f)]
        assert ends.count("completed") == 2
        notices = chat.until("interrupted (shield)")
        assert any("begun" in frame for frame in notices)
        assert chat.code == 1012
        assert acp.code == 1012
        stock.join()
        assert program.wait(60) == 0
        report = program.report

    assert stock.error is not None
    assert stock.error.code == -32800
    assert stock.code == 1012
    assert not alive(pid)
    assert report["turns_running"] == report["turns_interrupted"] == 2
    assert len(report["turns_abandoned"]) == 1
    assert report["execs_running"] == 1
    assert report["execs_finished"] == 2
    assert report["execs_killed"] == 0
    assert report["connections_told"] == 4
    assert report["connections_closed"] == 3
    assert report["connections_forced"] == 1
    assert not report["cut"]
    assert sum(report["phases"].values()) == pytest.approx(report["total_seconds"], abs=0.01)
    assert report["phases"]["draining"] >= 3
    assert report["phases"]["cancelling"] >= 4
    assert report["total_seconds"] < 40
