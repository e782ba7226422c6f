"""A program that embeds a gateway, whose agent says 100 MB as fast as it can.

Usage: fast.py CLOSE_SECONDS [STORE]. It prints its port, and `over` when that turn's agent has said all. STORE is
the path of a database; without it sessions are in memory.
"""

import logging
import sys
from functools import partial

import trio

from gateway_trio import serve
from gateway_trio.agents import TextDelta
from gateway_trio.config import Config, DrainConfig, ServerConfig
from gateway_trio.sqlite_store import SqliteStore

MEGABYTES = 100
PIECE = "0123456789abcde\n" * 4096  # 64 KiB


class FastAgent:
    async def run(self, turn, emit):
        if turn.text != "flood":
            await emit(TextDelta(turn.text))
            return
        for _ in range(MEGABYTES * 16):
            await emit(TextDelta(PIECE))
        print("over", flush=True)


async def main(close_seconds, path=None):
    config = Config(
        server=ServerConfig(port=0, send_seconds=1.5),
        drain=DrainConfig(grace_seconds=1, cleanup_seconds=1, exec_seconds=1, close_seconds=close_seconds),
    )
    async with trio.open_nursery() as nursery:
        gateway = await nursery.start(partial(serve, config, agent=FastAgent(), store=path and SqliteStore(path)))
        print(gateway.addresses[0][1], flush=True)


logging.basicConfig(level=logging.INFO)
trio.run(main, float(sys.argv[1]), *sys.argv[2:])
