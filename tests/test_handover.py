"""The port, kept by copies of its sockets: for a successor, and for nobody else."""

from __future__ import annotations

import contextlib
import os
import socket
from functools import partial

import pytest
import trio

from gateway_trio.config import Config, ServerConfig
from gateway_trio.handover import Handover
from gateway_trio.server import UnsafeBind, serve

CONFIG = Config(server=ServerConfig(port=0))


def is_open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 20).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize(
    ("reasons", "in_place", "stays"),
    [
        (["restart"], True, True),
        (["restart"], False, False),
        (["shutdown"], True, False),
        (["restart", "shutdown"], True, False),
    ],
)
async def test_the_port_stays_open_for_a_successor_alone(reasons, in_place, stays):
    handover = Handover({}, CONFIG.server)
    assert handover.listeners() is None
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            gateway = await nursery.start(partial(serve, CONFIG))
            handover.follow(gateway, in_place=in_place)
            port = gateway.addresses[0][1]
            assert is_open(port)
            for reason in reasons:
                gateway.drain(reason)
            await gateway.closed.wait()
    assert is_open(port) is stays
    handover.drop()
    assert not is_open(port)


def descriptors_of(socket_: str) -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            if os.readlink(f"/proc/self/fd/{name}") == socket_:
                found.append(int(name))
    return found


async def test_no_child_has_the_copies():
    handover = Handover({}, CONFIG.server)
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            gateway = await nursery.start(partial(serve, CONFIG))
            listening = os.readlink(f"/proc/self/fd/{gateway.listeners[0].socket.fileno()}")
            assert len(descriptors_of(listening)) == 1
            handover.follow(gateway, in_place=True)
            both = descriptors_of(listening)
            assert len(both) == 2
            assert not any(os.get_inheritable(descriptor) for descriptor in both)
            gateway.drain("shutdown")
    assert descriptors_of(listening) == []


async def test_a_given_socket_that_all_can_reach_takes_tokens():
    listeners = await trio.open_tcp_listeners(0, host="0.0.0.0")
    with (
        trio.fail_after(60),
        pytest.RaisesGroup(pytest.RaisesExc(UnsafeBind, match="given to us, is 0.0.0.0"), flatten_subgroups=True),
    ):
        await serve(CONFIG, listeners=listeners)
