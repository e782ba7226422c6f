"""The client library against a real process: restarts under it, and sockets that break."""

import shlex
import socket
from functools import partial

import pytest
import trio

from gateway_trio.client import Away, Back, Closed, Lost, Refused, State, Text, connect
from harness import Program

WORDS = " ".join(f"w{n}" for n in range(150))

CONFIG = """
[agent]
type = "echo"
words_per_second = 100

[quick_commands.count]
type = "exec"
command = "echo run >> {file}; for n in 1 2 3 4 5 6; do echo line $n; sleep 0.2; done"
"""


class Proxy:
    """A way to a port that can be cut: whoever goes through it is dropped, in the middle of whatever comes."""

    def __init__(self, port):
        self.to = port
        self.open = True
        self._streams = []

    async def run(self, *, task_status):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.port = listeners[0].socket.getsockname()[1]
        await trio.serve_listeners(self._carry, listeners, task_status=task_status)

    async def _carry(self, theirs):
        if not self.open:
            await trio.aclose_forcefully(theirs)
            return
        ours = await trio.open_tcp_stream("127.0.0.1", self.to)
        self._streams += [theirs, ours]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._copy, theirs, ours, nursery)
            nursery.start_soon(self._copy, ours, theirs, nursery)

    async def _copy(self, source, sink, nursery):
        try:
            async for data in source:
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(source)
            await trio.aclose_forcefully(sink)

    async def cut(self):
        """Drop everybody, with a reset."""
        streams, self._streams = self._streams, []
        for stream in streams:
            if stream.socket.fileno() < 0:
                continue  # it has gone by itself
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await trio.aclose_forcefully(stream)


def said(updates):
    texts = {}
    for update in updates:
        if isinstance(update, Text):
            before = texts.get(update.seq, "")
            assert update.at <= len(before)
            texts[update.seq] = before[: update.at] + update.text
    return "".join(texts.values())


async def take_until(updates, test):
    found = []
    async for update in updates:
        found.append(update)
        if test(update):
            return found
    raise AssertionError(f"it ended before that: {found}")


@pytest.fixture
def program(tmp_path):
    with Program(tmp_path, CONFIG.format(file=shlex.quote(str(tmp_path / "runs")))) as program:
        yield program


async def test_sockets_that_break_lose_nothing(program, nursery, tmp_path):
    proxy = Proxy(program.port)
    with trio.fail_after(120):
        await nursery.start(proxy.run)
        async with connect(f"ws://127.0.0.1:{proxy.port}") as client:
            session = await client.new_session()
            turn, exec_ = session.prompt(WORDS), session.prompt("/count")
            found = await take_until(turn, lambda u: isinstance(u, Text) and "w20" in u.text)
            await proxy.cut()
            found += await take_until(turn, lambda u: isinstance(u, Text) and "w60" in u.text)
            await proxy.cut()
            found += await take_until(turn, lambda u: isinstance(u, State) and u.ends)
            assert said(found) == WORDS
            assert sum(isinstance(u, Away) for u in found) == sum(isinstance(u, Back) for u in found) == 2
            assert (await turn.result()).state == "completed"
            output = [update async for update in exec_]
            assert said(output) == "".join(f"line {n}\n" for n in range(1, 7))
            assert exec_.outcome.facts.exit_code == 0
    assert (tmp_path / "runs").read_text() == "run\n", "nothing ran twice"


async def test_a_prompt_whose_answer_was_lost_runs_once(program, nursery, tmp_path):
    """The proxy carries it to the gateway, and drops the way back before anything comes."""
    proxy = Proxy(program.port)
    with trio.fail_after(120):
        await nursery.start(proxy.run)
        async with (
            connect(f"ws://127.0.0.1:{proxy.port}") as client,
            connect(f"ws://127.0.0.1:{program.port}") as watcher,
        ):
            session = await client.new_session()
            watched = (await watcher.resume(session.id)).updates()
            prompt = session.prompt("short")
            await take_until(watched, lambda u: isinstance(u, State))
            await proxy.cut()
            assert (await prompt.result()).state == "completed"
            again = session.prompt("more")
            await proxy.cut()  # whether it got there or not
            assert (await again.result()).state == "completed"
            last = session.prompt("last")
            found = await take_until(watched, lambda u: isinstance(u, State) and u.key == last.key and u.ends)
            ended = [u.key for u in found if isinstance(u, State) and u.ends]
            assert ended == [prompt.key, again.key, last.key], "each once"


async def test_a_restart_under_it(tmp_path):
    """1012, then the same port again: it comes back, and says that the session was not kept."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    config = (
        f'[server]\nport = {port}\n[agent]\ntype = "echo"\nwords_per_second = 20\n[drain]\ngrace_seconds = 0.2\n'
    )
    with trio.fail_after(120):
        with Program(tmp_path, config) as first:
            async with connect(f"ws://127.0.0.1:{port}") as client:
                session = await client.new_session()
                everything = session.updates()
                prompt = session.prompt(WORDS)
                await take_until(prompt, lambda u: isinstance(u, Text))
                await client.restart()
                outcome = await prompt.result()
                assert (outcome.state, outcome.error.reason, outcome.error.admitted) == (
                    "interrupted",
                    "interrupted",
                    True,
                )
                away = (await take_until(everything, lambda u: isinstance(u, Away)))[-1]
                assert away.code == 1012
                assert 0 < away.seconds <= 2
                assert await trio.to_thread.run_sync(first.wait) == 75
                with await trio.to_thread.run_sync(partial(Program, tmp_path, config)):
                    assert (await client.status())["phase"] == "open"
                    with pytest.raises(Refused) as caught:
                        await take_until(everything, lambda _: False)
                    assert caught.value.reason == "unknown_session"
                    assert said([u async for u in (await client.new_session()).prompt("again")]) == "again"


async def test_refusals_in_a_drain_have_their_reasons(program):
    with trio.fail_after(60):
        async with connect(f"ws://127.0.0.1:{program.port}") as client:
            session = await client.new_session()
            await client.drain("maintenance")
            with pytest.raises(Refused) as caught:
                await session.prompt("hello").result()
            refusal = caught.value
            assert (refusal.code, refusal.reason, refusal.admitted) == (-32010, "draining", False)
            assert (refusal.retryable, refusal.reasons) == (True, ["operator"])
            assert (await session.prompt("/count").result()).facts.status == "exited"
            await client.undrain()
            assert (await session.prompt("hello").result()).state == "completed"


async def test_a_token_that_is_revoked_ends_it(tmp_path):
    tokens = '[[auth.tokens]]\nname = "ann"\nrole = "user"\nenv = "ANN"\n'
    with Program(tmp_path, tokens, env={"ANN": "anns-token-of-old"}) as program:
        with trio.fail_after(60):
            async with connect(f"ws://127.0.0.1:{program.port}", token="anns-token-of-old") as client:
                session = await client.new_session()
                program.config.write_text(program.config.read_text().replace('"ann"', '"tim"'))
                program.signal(1)
                with pytest.raises(Closed) as caught:
                    await take_until(session.updates(), lambda _: False)
                assert caught.value.code == 4501
                with pytest.raises(Lost):
                    await client.status()
