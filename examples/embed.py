"""A gateway inside another Trio program, with an agent of its own.

Run it, then `npx -y wscat -c ws://127.0.0.1:8765/chat`. What a signal means is the program's to say: here Ctrl-C
drains with a grace of 10 s. (Left to itself it is a KeyboardInterrupt in whichever task runs just then.)
"""

import signal
from functools import partial

import trio

from gateway_trio import Config, Emit, Gateway, TextDelta, Turn, serve
from gateway_trio.config import ExecCommand, ServerConfig


class Shout:
    """The agent: says the prompt in capitals, a word at a time."""

    async def run(self, turn: Turn, emit: Emit) -> None:
        for word in turn.text.split():
            await emit(TextDelta(word.upper() + " "))
            await trio.sleep(0.05)


async def drain_at_signal(gateway: Gateway) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            gateway.drain("shutdown", by=signal.Signals(number).name, grace_seconds=10)


async def main(port: int = 8765) -> None:
    uptime = ExecCommand("uptime", command="uptime", description="how long this machine is up")
    config = Config(server=ServerConfig(port=port), quick_commands={"uptime": uptime})
    async with trio.open_nursery() as nursery:
        gateway = await nursery.start(partial(serve, config, agent=Shout()))
        nursery.start_soon(drain_at_signal, gateway)
        print(f"listening on {gateway.addresses[0]}", flush=True)
        await gateway.closed.wait()
        print(f"drained in {gateway.report.total_seconds:.3f} s", flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
