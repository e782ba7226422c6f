"""The client library's connection: in memory, in virtual time."""

import contextlib
import hashlib
import traceback
from functools import partial

import pytest
import trio
import trio.testing
import trio_websocket

from doors import Door
from gateway_trio import client as library
from gateway_trio.client import Closed, Lost, Refused, Unauthorized, Unreachable, connect
from gateway_trio.client.address import parse_url
from gateway_trio.client.errors import refused
from gateway_trio.client.wire import POSTED_FRAMES
from gateway_trio.core.jsonrpc import CLOSES
from harness import Program

TOKEN = "correct-horse-battery"
WITH_TOKENS = f"""
[[auth.tokens]]
name = "ann"
role = "admin"
sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}"

[[auth.tokens]]
name = "bob"
role = "user"
sha256 = "{hashlib.sha256(b"bobs-token").hexdigest()}"
"""


@pytest.fixture
async def door(nursery):
    with trio.fail_after(300):
        yield Door(nursery)


async def until_phase(client, name):
    async for phase in client.phases():
        if phase.name == name:
            return phase
    raise AssertionError("phases do not end without an error")


async def test_what_an_operator_asks_is_answered(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            assert (await client.status())["phase"] == "open"
            status = await client.drain("a look inside")
            assert status["asked"]["operator"]["why"] == "a look inside"
            phase = await until_phase(client, "draining")
            assert (phase.reasons, phase.revocable, phase.accepts) == (("operator",), True, ("exec", "control"))
            assert phase.remaining_seconds is None
            assert client.phase == phase
            assert (await client.undrain())["phase"] == "open"
            assert (await until_phase(client, "open")).accepts == ("turn", "exec", "control")


async def test_a_refusal_has_what_programs_branch_on(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            with pytest.raises(Refused) as caught:
                await client.kill("x0")
            assert (caught.value.reason, caught.value.code, caught.value.retryable) == (
                "unknown_exec",
                -32002,
                False,
            )
            assert caught.value.admitted is None
            with pytest.raises(Refused) as caught:
                await client.exec("no-such-thing")
            assert (caught.value.reason, caught.value.admitted) == ("invalid_params", False)


@pytest.mark.parametrize(
    "error", [None, {}, [], {"code": "x", "message": 7, "data": 3}, {"data": {"retryAfterMs": "x"}}]
)
def test_an_error_may_hold_anything(error):
    fault = refused(error)
    assert (fault.code, fault.reason, fault.retryable) == (0, "", False)
    assert (fault.retry_after_ms, fault.admitted, fault.reasons) == (None, None, [])


async def test_a_slow_reader_of_phases_gets_the_newest(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            phases = client.phases()
            assert (await anext(phases)).name == "open"
            await client.drain()
            await client.undrain()
            await client.drain()
            await until_phase(client, "draining")
            assert (await anext(phases)).name == "draining"
            with trio.move_on_after(5) as patience:
                await anext(phases)
            assert patience.cancelled_caught, "there was no other"


@pytest.mark.parametrize("token_in", ["header", "message"])
async def test_a_token_goes_into_the_header_or_into_a_message(autojump_clock, door, token_in):
    with trio.fail_after(60):
        await door.serve(WITH_TOKENS)
        async with door.connect(token=TOKEN, token_in=token_in) as client:
            assert (await client.drain())["phase"] == "draining"
        async with door.connect(token="bobs-token", token_in=token_in) as client:
            with pytest.raises(Refused) as caught:
                await client.undrain()
            assert caught.value.reason == "forbidden"


@pytest.mark.parametrize("token_in", ["header", "message"])
@pytest.mark.parametrize("token", ["wrong", None])
async def test_who_is_not_known_is_told_so(autojump_clock, door, token, token_in):
    with trio.fail_after(60):
        await door.serve(WITH_TOKENS)
        with pytest.raises(Unauthorized) as caught:
            async with door.connect(token=token, token_in=token_in):
                raise AssertionError("nobody gets here")
        assert "wrong" not in str(caught.value)
        assert len(door.tries) == 1


async def test_where_nobody_is_the_first_try_is_the_only_one(autojump_clock, door):
    with trio.fail_after(60), pytest.raises(Unreachable, match="nobody listens"):
        async with door.connect():
            raise AssertionError("nobody gets here")
    assert len(door.tries) == 1


async def test_a_gateway_that_says_nothing_is_given_up(autojump_clock, door):
    async def open_stream():
        ours, theirs = trio.testing.memory_stream_pair()
        silent.append(theirs)
        return ours

    silent = []
    with trio.fail_after(60), pytest.raises(Unreachable, match="within 7 s"):
        async with connect("ws://localhost", open_stream=open_stream, connect_seconds=7):
            raise AssertionError("nobody gets here")
    assert trio.current_time() >= 7
    assert await silent[0].receive_some() != b""  # the request
    assert await silent[0].receive_some() == b"", "the stream was closed"


@pytest.mark.parametrize(
    ("answer", "status", "retryable", "after_ms"),
    [
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\nContent-Length: 4\r\n\r\nfull", 503, True, 5000),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404, False, None),
        (
            b"HTTP/1.1 429 Slow\r\nRetry-After: Fri, 01 Jan 2027 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n",
            429,
            True,
            None,
        ),
        (b"SSH-2.0-OpenSSH\r\n", None, True, None),
        (b"", None, True, None),
    ],
)
async def test_what_is_no_gateway_is_named(autojump_clock, answer, status, retryable, after_ms):
    async def open_stream():
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(answer)
        await theirs.send_eof()
        return ours

    with trio.fail_after(60), pytest.raises(Unreachable) as caught:
        async with connect("ws://localhost", open_stream=open_stream):
            raise AssertionError("nobody gets here")
    assert (caught.value.status, caught.value.retryable) == (status, retryable)
    assert caught.value.retry_after_ms == after_ms


@pytest.mark.parametrize(
    "says",
    [
        "hello",
        "[]",
        '{"id": 1, "result": {}}',
        '{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}',
        '{"jsonrpc": "2.0", "method": "welcome"}',
    ],
)
async def test_what_does_not_speak_acp_is_named_at_once(nursery, says):
    async def speak(request):
        websocket = await request.accept()
        await websocket.get_message()
        await websocket.send_message(says)
        with contextlib.suppress(trio_websocket.ConnectionClosed):
            await websocket.get_message()

    with trio.fail_after(60):
        serving = partial(trio_websocket.serve_websocket, speak, "127.0.0.1", 0, ssl_context=None)
        server = await nursery.start(serving)
        with pytest.raises(Unreachable, match="does not speak ACP") as caught:
            async with connect(f"ws://127.0.0.1:{server.port}", connect_seconds=1000):
                raise AssertionError("nobody gets here")
        assert not caught.value.retryable
        nursery.cancel_scope.cancel()


async def test_what_the_block_raises_comes_through_as_it_is(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        with pytest.raises(KeyError, match="mine"):
            async with door.connect():
                raise KeyError("mine")


@pytest.mark.parametrize("how", ["left", "cancelled"])
async def test_it_closes_at_once_and_cleanly(autojump_clock, door, how):
    with trio.fail_after(60):
        await door.serve()
        began = trio.current_time()
        with trio.CancelScope() as scope:
            async with door.connect() as client:
                (connection,) = door.gateway.connections
                if how == "cancelled":
                    scope.cancel()
                    await client.status()
        await trio.testing.wait_all_tasks_blocked()
        assert trio.current_time() == began, "nothing was waited for"
        assert connection._websocket.closed.code == 1000
        assert not door.gateway.connections


async def test_what_was_asked_last_is_still_sent(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            client._board.keeper.wire.ask("_gateway-trio/drain", {"why": "late"}, print)
        async with door.connect() as client:
            await until_phase(client, "draining")


async def test_it_comes_back_after_a_restart(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            phases = client.phases()
            assert (await anext(phases)).name == "open"
            await door.restart()
            assert client.phase.name == "closing"
            with trio.move_on_after(30) as patience:
                await client.status()
                await client.status()
            assert patience.cancelled_caught, "it waits for the gateway"
            waits = [b - a for a, b in zip(door.tries[1:], door.tries[2:], strict=False)]
            assert len(waits) >= 4
            assert all(0.25 <= wait <= 8 for wait in waits)
            await door.serve()
            assert (await client.status())["phase"] == "open"
            await until_phase(client, "open")


async def test_it_comes_back_when_the_goodbye_says(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            began = trio.current_time()
            door.close_connections("slow")
            with pytest.raises(Lost) as caught:
                await client.status()
            assert caught.value.code == 4101
            assert not isinstance(caught.value, Closed)
            assert not client.connected
            told = client._board.keeper.goodbye_ms / 1000
            assert (await client.status())["phase"] == "open"
            assert 0.2 <= told <= 2
            assert trio.current_time() - began == pytest.approx(told, abs=0.001)


@pytest.mark.parametrize("why", ["revoked", "policy", "too_big"])
async def test_some_codes_are_for_good(autojump_clock, door, why):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            door.close_connections(why)
            with pytest.raises(Closed) as caught:
                await until_phase(client, "never")
            assert caught.value.code == CLOSES[why].code
            with pytest.raises(Closed):
                await client.status()
            await trio.sleep(30)
            assert len(door.tries) == 1


async def test_it_may_be_told_not_to_come_back(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect(come_back_seconds=0) as client:
            await door.restart()
            with pytest.raises(Closed) as caught:
                await until_phase(client, "never")
            assert caught.value.code == 1012
            assert len(door.tries) == 1


async def test_it_gives_up_after_the_time_that_it_was_given(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect(come_back_seconds=20) as client:
            await door.restart()
            lost_at = trio.current_time()
            with pytest.raises(Unreachable, match="nobody listens"):
                await until_phase(client, "never")
            assert 10 < trio.current_time() - lost_at <= 20
            with pytest.raises(Unreachable):
                await client.status()


async def test_a_token_that_is_not_known_any_more_is_not_tried_for_ever(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve(WITH_TOKENS)
        async with door.connect(token="bobs-token") as client:
            await door.restart()
            await door.serve(WITH_TOKENS[: WITH_TOKENS.rindex("[[")])
            with pytest.raises(Unauthorized):
                await until_phase(client, "never")
            assert len(door.tries) == 2


async def test_a_gateway_that_falls_silent_is_left(autojump_clock, door):
    """Its side of the network is gone: nothing comes, and nothing says so."""
    streams = []

    async def open_stream():
        streams.append(Cut(await door.open()))
        return streams[-1]

    with trio.fail_after(200):
        await door.serve()
        async with connect("ws://localhost", open_stream=open_stream) as client:
            streams[0].cut = True
            with pytest.raises(Lost, match="does not answer"):
                await client.status()
            assert (await client.status())["phase"] == "open"


class Cut(trio.abc.Stream):
    """A stream that carries nothing any more once it is `cut`, and does not say so."""

    def __init__(self, inner):
        self.cut = False
        self._inner = inner

    async def send_all(self, data):
        if not self.cut:
            await self._inner.send_all(data)
        await trio.lowlevel.checkpoint()

    async def wait_send_all_might_not_block(self):
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes=None):
        data = await self._inner.receive_some(max_bytes)
        if self.cut:
            await trio.sleep_forever()
        return data

    async def aclose(self):
        await self._inner.aclose()


async def test_too_much_that_waits_is_refused_here(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client, trio.open_nursery() as nursery:
            refusals = []

            async def ask():
                try:
                    await client.status()
                except Refused as refusal:
                    refusals.append(refusal)

            for _ in range(POSTED_FRAMES + 10):
                nursery.start_soon(ask)
        assert len(refusals) == 10
        assert {(r.reason, r.admitted, r.retryable) for r in refusals} == {("busy", False, True)}


@pytest.mark.parametrize("params", [{"why": "bad \udcff"}, {"why": float("nan")}])
async def test_what_the_gateway_could_not_read_is_refused_here(autojump_clock, door, params):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            with pytest.raises(Refused, match="not sent") as caught:
                await client.call("_gateway-trio/drain", params)
            assert (caught.value.reason, caught.value.admitted) == ("invalid_params", False)
            with pytest.raises(Refused, match="UTF-8"):
                await client.exec("words", ["\udcff"])
            with pytest.raises(Refused, match="UTF-8"):
                await client.load_session("\udcff")
            assert (await client.status())["phase"] == "open"
            assert client.losses == 0


async def test_what_was_broken_on_its_way_ends_the_connection(autojump_clock, door):
    with trio.fail_after(60):
        await door.serve()
        async with door.connect() as client:
            wire = client._board.keeper.wire
            wire.ask("_gateway-trio/status", {}, print)
            wire._posted[-1] = wire._posted[-1][:-1]
            with pytest.raises(Lost, match="could not read") as caught:
                await client.kill("x1")
            assert not isinstance(caught.value, Closed)
            assert (await client.status())["phase"] == "open"
            assert client.losses == 1


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "path"),
    [
        ("ws://127.0.0.1:8765", "127.0.0.1", 8765, False, "/acp"),
        ("wss://gateway.example", "gateway.example", 443, True, "/acp"),
        ("ws://[::1]:99/under/acp", "::1", 99, False, "/under/acp"),
        ("ws://host/", "host", 80, False, "/acp"),
    ],
)
def test_a_url_is_read(url, host, port, tls, path):
    address = parse_url(url)
    assert (address.host, address.port, address.tls, address.path) == (host, port, tls, path)


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "host:80",
        "ws://",
        "ws://me:secret@host",
        "ws://host?token=x",
        "ws://host#x",
        "ws://host:99999",
        "ws://host:0",
        "wss://host:00/acp",
        "ws://host:1/ä",
        "ws://host:1/a b",
        f"ws://{'x' * 62}:8765",
        "ws://a..b:1",
        "ws://" + "x" * 300,
        "ws://\udcff:1",
    ],
)
def test_a_url_that_cannot_be_one(url):
    with pytest.raises(ValueError, match="URL"):
        parse_url(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("ws://user:SEKRET@127.0.0.1:1", "ws://…: "),
        ("ws://user:SEK/SEKRET@127.0.0.1:1", "ws://…: "),
        ("ws://user:SEKRET\N{ACCOUNT OF}@127.0.0.1:1", "ws://…: "),
        ("ws://user:SEKRET@[::1", "ws://…: "),
        ("ws://user:SEKRET", "ws://user: "),
        ("ws://host:1SEKRET", "ws://host: "),
        ("ws://host:1?token=SEKRET", "ws://host:1: "),
        ("ws://host:1/acp?token=SEKRET@x", "ws://…: "),
        ("wss://[::1]:1/acp#SEKRET", "wss://[::1]:1: "),
        ("ws://a..b:1", "ws://a..b:1: "),
        ("SEKRET@host", "the URL: "),
        ("https://host/SEKRET", "the URL: "),
    ],
)
def test_what_may_be_a_secret_in_a_url_is_not_shown(url, shown):
    with pytest.raises(ValueError, match="URL") as caught:
        parse_url(url)
    assert str(caught.value).startswith(shown)
    assert "SEKRET" not in "".join(traceback.format_exception(caught.value))


async def test_a_host_that_the_resolver_cannot_write_is_told():
    with trio.fail_after(60), pytest.raises(Unreachable, match="no host's name"):
        async with connect("ws://\N{GRINNING FACE}.invalid"):
            raise AssertionError("nobody gets here")


@pytest.mark.parametrize("token", ["", " ", "a b", "a\nb", "schlüssel"])
async def test_a_token_that_cannot_be_one(autojump_clock, door, token):
    with pytest.raises(ValueError, match="printable ASCII"):
        async with door.connect(token=token):
            raise AssertionError("nobody gets here")


def test_the_public_names_are_there():
    assert sorted(library.__all__) == sorted(set(library.__all__))
    assert all(hasattr(library, name) for name in library.__all__)


EXEC = """
[quick_commands.words]
type = "exec"
command = "printf '%s|' \\"$@\\"; exit 3"
args = "words"
"""


async def test_with_a_real_process(tmp_path):
    with Program(tmp_path, EXEC) as program:
        with trio.fail_after(60):
            async with connect(f"ws://127.0.0.1:{program.port}", come_back_seconds=0) as client:
                facts = await client.exec("words", ["a b", "c"])
                assert facts.output == "a b|c|"
                assert (facts.exit_code, facts.status) == (3, "exited")
                assert (facts.signal, facts.background, facts.error) == (None, 0, None)
                assert "restart" in (await client.restart()).lower()
                with pytest.raises(Closed) as caught:
                    await until_phase(client, "never")
                assert caught.value.code == 1012
            assert await trio.to_thread.run_sync(program.wait) == 75
            with pytest.raises(Unreachable):
                async with connect(f"ws://127.0.0.1:{program.port}"):
                    raise AssertionError("nobody gets here")
