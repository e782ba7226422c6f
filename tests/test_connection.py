"""One socket, in virtual time: keepalive, what waits for a slow client, and how it ends."""

from __future__ import annotations

import json
import socket
import struct
from functools import partial

import pytest
import trio
import trio.testing
import trio_websocket

import gateway_trio.connection
from gateway_trio.config import Config, parse_config
from gateway_trio.core.jsonrpc import CLOSES, notification, request
from gateway_trio.dialects.acp import AcpDialect
from gateway_trio.keepalive import KEEPALIVE_SECONDS
from gateway_trio.server import serve
from gateway_trio.testing import ScriptedAgent, open_gateway

UPGRADE = (
    b"GET /acp HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
TOKENS = '[[auth.tokens]]\nname = "ann"\nrole = "user"\nsha256 = "' + "0" * 64 + '"\n'


async def test_a_peer_that_is_silent_and_answers_pings_stays(autojump_clock):
    with trio.fail_after(3600):
        async with open_gateway() as lab:
            client = await lab.chat()
            await trio.sleep(20 * KEEPALIVE_SECONDS)
            await client.send("still here")
            assert await client.receive() == "still here"


async def test_a_peer_that_is_gone_without_a_word_is_closed_with_4102(autojump_clock):
    with trio.fail_after(3600):
        async with open_gateway() as lab:
            stream = await lab.listener.connect()
            await stream.send_all(
                b"GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            start = trio.current_time()
            got = b""
            while data := await stream.receive_some():
                got += data
            took = trio.current_time() - start
            assert b"\x10\x06" in got  # 4102 in a close frame
            assert 2 * KEEPALIVE_SECONDS <= took <= 3 * KEEPALIVE_SECONDS
            await trio.testing.wait_all_tasks_blocked()
            assert not lab.gateway.connections


async def test_one_service_looks_after_all_connections(autojump_clock):
    with trio.fail_after(3600):
        async with open_gateway() as lab:
            clients = [await lab.chat(f"s{n}") for n in range(3)]
            await trio.testing.wait_all_tasks_blocked()
            before = trio.lowlevel.current_statistics().tasks_living
            more = [await lab.chat(f"t{n}") for n in range(10)]
            await trio.testing.wait_all_tasks_blocked()
            each = (trio.lowlevel.current_statistics().tasks_living - before) / len(more)
            assert each <= 4  # ours: the handler, trio-websocket's reader, ours; and the client's reader
            assert len(lab.gateway.connections) == len(clients) + len(more)


async def test_a_lost_socket_cancels_nothing(autojump_clock):
    agent = ScriptedAgent({"long": ["a ", 30, "b"]})
    with trio.fail_after(3600):
        async with open_gateway(agent=agent) as lab:
            first = await lab.acp()
            session = await first.new_session()
            await first.ask_prompt(session, "long")
            await first.until_state("running")
            await first.websocket.aclose()
            while lab.gateway.connections:
                await trio.testing.wait_all_tasks_blocked()
            assert agent.running == 1
            again = await lab.acp()
            await again.call("session/load", {"sessionId": session, "cwd": "/", "mcpServers": []})
            await again.until_state("completed")
            assert again.text() == "a b"


async def test_answers_that_nobody_takes_close_with_4101(autojump_clock):
    """The client's stream does not block in memory, so the requests come in one read, before any answer is sent."""
    with trio.fail_after(3600):
        async with open_gateway() as lab:
            client = await lab.acp()
            before = len(lab.gateway.connections)
            assert before == 1
            connection = next(iter(lab.gateway.connections))
            connection.send(*(json.dumps(notification("x", {})) for _ in range(2000)))
            with pytest.raises(trio_websocket.ConnectionClosed):
                for number in range(100):
                    await client.send(request(1000 + number, "_gateway-trio/status", {}))
                    await trio.testing.wait_all_tasks_blocked()
            assert client.closed is not None
            assert client.closed.code == 4101


async def test_a_connection_whose_dialect_breaks_costs_nobody_else(autojump_clock, caplog):
    with trio.fail_after(3600):
        async with open_gateway() as lab:
            other = await lab.chat()
            client = await lab.acp()
            connection = next(c for c in lab.gateway.connections if isinstance(c._dialect, AcpDialect))

            def broken(text: str) -> None:
                raise ZeroDivisionError(text)

            connection._dialect.received = broken
            await client.send("{}")
            while client.closed is None:
                await trio.testing.wait_all_tasks_blocked()
            await other.send("hello")
            assert await other.receive() == "hello"
            assert "a connection failed" in caplog.text


@pytest.mark.parametrize("shown_out", [False, True], ids=["stays", "is shown out"])
@pytest.mark.parametrize("known", [True, False], ids=["known", "not authenticated"])
async def test_a_peer_that_resets_while_we_wait_to_send_has_only_left(known, shown_out, monkeypatch, caplog):
    """Over TCP, as only there a reset is told to the writer and the reader, whichever comes first."""
    monkeypatch.setattr(gateway_trio.connection, "AUTHENTICATE_SECONDS", 1000)
    config = Config() if known else parse_config(TOKENS, environ={})
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            serving = partial(serve, config, agent=ScriptedAgent(), listeners=listeners)
            gateway = await nursery.start(serving)
            peer = await trio.open_tcp_stream(*listeners[0].socket.getsockname())
            await peer.send_all(UPGRADE)
            assert (await peer.receive_some()).startswith(b"HTTP/1.1 101 ")
            while not gateway.connections:
                await trio.testing.wait_all_tasks_blocked()
            (connection,) = gateway.connections
            ended = []
            monkeypatch.setattr(gateway.coordinator.timeline, "socket_ended", lambda *, clean: ended.append(clean))
            connection.send("x" * 20_000_000)  # more than the sockets between us take
            if shown_out:
                connection.close(CLOSES["restart"], pull_to_end=True)
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert connection._guard._sending.locked(), "the writer was to wait"

            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await trio.aclose_forcefully(peer)
            while gateway.coordinator.sockets:
                await trio.testing.wait_all_tasks_blocked(0.01)
            assert not gateway.connections
            assert gateway.entrance.waiting == 0
            assert ended == ([False] if shown_out else []), "who leaves was not closed by us"
            assert sum(gateway.coordinator.tally.closes.values()) == shown_out
            gateway.drain("shutdown", by="the test", grace_seconds=0)
    assert "a connection failed" not in caplog.text
    assert [record for record in caplog.records if record.levelname == "ERROR" or record.exc_info] == []
