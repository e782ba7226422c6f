"""How long the first chunk of an answer takes through the gateway, against the SDK called directly.

A model server, a process of its own, answers each prompt at once. Through the gateway: from sending a prompt over
`/acp`, on a socket that stands, to its first chunk. Directly: `openai.AsyncOpenAI` in this process, from the call
to the first chunk with text. The two alternate, batch by batch, with 1 and with 50 turns at once; all of a batch
are asked for in one moment, and each is measured from there. Each turn has a new session, so that both send the
model the same.

    python bench/first_token.py [--batches 500] [--json]

Target: at most 1.3 times the SDK + 3 ms, at 1 and at 50.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time

import openai
import trio
import trio_websocket

from acp_client import Client
from figures import finish, line, spread
from gateway import Program

PROMPT = "a prompt of some words, as people write them"

CHUNKS = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "word "}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"content": "word"}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
]
BODY = (
    b"".join(b"data: %s\n\n" % json.dumps({"id": "c", **chunk}).encode() for chunk in CHUNKS) + b"data: [DONE]\n\n"
)
REPLY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
)


async def answer(stream: trio.SocketStream) -> None:
    """Answer requests whose body has a length, one after the other."""
    data = b""
    try:
        while chunk := await stream.receive_some():
            data += chunk
            head, found, body = data.partition(b"\r\n\r\n")
            if found and len(body) >= int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
                data = b""
                await stream.send_all(REPLY)
    except trio.BrokenResourceError:
        pass


async def serve_model(port: multiprocessing.Queue) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=256)
    port.put(listener.socket.getsockname()[1])
    await trio.serve_listeners(answer, [listener])


def run_model(port: multiprocessing.Queue) -> None:
    trio.run(serve_model, port)


class Asker(Client):
    """A client with a session of its own, anew for each round."""

    session = ""

    async def renew(self) -> None:
        if self.session:
            await self.call("session/close", {"sessionId": self.session})
        self.session = await self.new_session()

    async def first_token(self, start: float, into: list[float]) -> None:
        id_ = await self.prompt(self.session, PROMPT)
        while True:
            frame = json.loads(await self.websocket.get_message())
            if (frame.get("params") or {}).get("update", {}).get("sessionUpdate") == "agent_message_chunk":
                into.append(time.perf_counter() - start)
                break
        assert (await self.answer(id_))["stopReason"] == "end_turn"


async def directly(sdk: openai.AsyncOpenAI, start: float, into: list[float]) -> None:
    asked = [{"role": "user", "content": PROMPT}]
    first = True
    async with await sdk.chat.completions.create(model="m", messages=asked, stream=True) as stream:
        async for chunk in stream:
            if first and chunk.choices and chunk.choices[0].delta.content:
                into.append(time.perf_counter() - start)
                first = False


async def batch(tasks: list, into: list[float]) -> None:
    start = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(task, start, into)


async def compare(sdk: openai.AsyncOpenAI, clients: list[Asker], batches: int) -> tuple[list[float], list[float]]:
    floors: list[float] = []
    through: list[float] = []
    for number in range(batches + 3):
        if number == 3:  # the first ones open the connections and warm caches
            floors.clear()
            through.clear()
        for client in clients:
            await client.renew()
        await batch([lambda start, into: directly(sdk, start, into)] * len(clients), floors)
        await batch([client.first_token for client in clients], through)
    assert len(floors) == len(through) == batches * len(clients)
    return floors, through


async def measure(port: int, model: int, batches: int) -> dict[int, tuple[list[float], list[float]]]:
    results = {}
    sdk = openai.AsyncOpenAI(api_key="none", base_url=f"http://127.0.0.1:{model}/v1", max_retries=0)
    async with sdk, trio.open_nursery() as nursery:
        clients = []
        for _ in range(50):
            websocket = await trio_websocket.connect_websocket_url(nursery, f"ws://127.0.0.1:{port}/acp")
            clients.append(Asker(websocket))
            await clients[-1].call("initialize", {"protocolVersion": 1})
        for at_once in (1, 50):
            results[at_once] = await compare(sdk, clients[:at_once], max(batches // at_once, 10))
        for client in clients:
            await client.websocket.aclose()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=500, help="with one turn at once; with 50, a 50th of it")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    model = context.Process(target=run_model, args=(told,), daemon=True)
    model.start()
    port = told.get(timeout=30)
    config = (
        f'[server]\nport = 0\n[agent]\ntype = "openai"\nbase_url = "http://127.0.0.1:{port}/v1"\nmodel = "m"\n'
    )
    try:
        with Program(config) as program:
            results = trio.run(measure, program.port, port, options.batches)
    finally:
        model.terminate()
        model.join()
    out: dict[str, object] = {}
    for at_once, (floors, through) in results.items():
        base, median = spread(floors)["median"], spread(through)["median"]
        out[f"{at_once} at once"] = {
            "sdk": spread(floors),
            "gateway": spread(through),
            "target": 1.3 * base + 0.003,
        }
        if not options.json:
            print(line(f"{at_once} at once: the SDK", floors))
            print(line(f"{at_once} at once: through /acp", through))
            verdict = "within" if median <= 1.3 * base + 0.003 else "over"
            print(f"    {median / base:.2f}x, {(median - base) * 1000:+.2f} ms: {verdict} 1.3x + 3 ms\n")
    finish(options.json, out)


if __name__ == "__main__":
    main()
