"""Cases 54 and 55: what strangers send before they are anybody, and that nothing of them stays."""

import contextlib
import threading

import pytest
import trio
import trio.testing
from processes import descriptors, wait_until
from raw import Raw, request_head

from gateway_trio.config import Config, ServerConfig
from gateway_trio.front_door import HANDSHAKE_SECONDS, LINGER_SECONDS
from gateway_trio.testing import open_gateway
from harness import Program

CONFIG = """
[server]
port = 0
hosts = ["xn--a-ecp.ru"]
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    with Program(tmp_path_factory.mktemp("gateway"), CONFIG) as program:
        yield program


@pytest.fixture(scope="module")
def bystander(program):
    with program.chat("bystander") as chat:
        yield chat


#: What ends a bare trio-websocket server, each before any authentication.
SEVEN = {
    "Host of a byte": {"Host": b"\xff"},
    "Host in bad punycode": {"Host": b"xn--a-ecp.ru"},
    "Connection": {"Connection": b"Upgrade, \xff"},
    "Sec-WebSocket-Protocol": {"Sec_WebSocket_Protocol": b"\xff"},
    "Sec-WebSocket-Extensions": {"Sec_WebSocket_Extensions": b"permessage-deflate; \xff"},
    "Upgrade": {"Upgrade": b"websocket, \xff"},
    "Sec-WebSocket-Key": {"Sec_WebSocket_Key": b"\xff" * 16},
}


@pytest.mark.parametrize("path", ["/acp", "/chat", "/elsewhere"])
@pytest.mark.parametrize("name", SEVEN)
def test_case_54_the_seven(program, bystander, path, name):
    with Raw(program.port) as raw:
        raw.send(request_head(program.port, path, **SEVEN[name]))
        if name == "Host in bad punycode":  # it is configured here, and names are compared as they are
            assert raw.status() == (404 if path == "/elsewhere" else 101)
        else:
            assert raw.status() == 400
    assert bystander.ask("still here") == "still here"
    assert "a connection failed" not in program.text


def test_case_54_bad_punycode_that_is_not_configured(tmp_path):
    with Program(tmp_path) as program, Raw(program.port) as raw:
        raw.send(request_head(program.port, Host=b"xn--a-ecp.ru"))
        assert raw.status() == 403
        assert program.get("/livez")[0] == 200


def heads(port):
    """Yield a name, what to send, and the status codes that will do (None: closed without a word)."""
    good = request_head(port)
    _, _, rest = good.partition(b"\r\n")

    def with_line(line):
        return line + b"\r\n" + rest

    yield "no key", request_head(port, leave_out=["Sec-WebSocket-Key"]), {400}
    yield "a short key", request_head(port, Sec_WebSocket_Key="YWJj"), {400}
    yield "a key that is no base64", request_head(port, Sec_WebSocket_Key="!" * 24), {400}
    yield "a key of fullwidth letters", request_head(port, Sec_WebSocket_Key="Ａ" * 24), {400}
    yield "two keys", good[:-2] + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", {400}
    yield "no version", request_head(port, leave_out=["Sec-WebSocket-Version"]), {400, 426}
    yield "version 8", request_head(port, Sec_WebSocket_Version="8"), {400, 426}
    yield "no Upgrade", request_head(port, leave_out=["Upgrade"]), {426}
    yield "no Connection", request_head(port, leave_out=["Connection"]), {426}
    yield "Upgrade to h2c", request_head(port, Upgrade="h2c"), {426}
    yield "no Host", request_head(port, leave_out=["Host"]), {400}
    yield "two Hosts", good[:-2] + b"Host: 127.0.0.1\r\n\r\n", {400}
    yield "a header with no colon", good[:-2] + b"nonsense\r\n\r\n", {400}
    yield "a header with a blank name", good[:-2] + b" : x\r\n\r\n", {400, 101}
    yield "a NUL in a header", good[:-2] + b"X: a\0b\r\n\r\n", {400}
    yield "a bare CR in a header", good[:-2] + b"X: a\rb\r\n\r\n", {400}
    yield "a huge header", good[:-2] + b"X: " + b"x" * 100_000 + b"\r\n\r\n", {431, 400}
    yield "many headers", good[:-2] + b"X: y\r\n" * 20_000 + b"\r\n", {431, 400}
    yield "a huge first line", b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", {431, 400, 414}
    yield "HTTP/0.9", b"GET /acp\r\n\r\n", {400}
    yield "HTTP/1.0", with_line(b"GET /acp HTTP/1.0"), {400, 505}
    yield "HTTP/2.0", with_line(b"GET /acp HTTP/2.0"), {400, 505}
    yield "the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505, 404, 405}
    yield "a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), {400}
    yield "an SSH hello", b"SSH-2.0-OpenSSH_9.0\r\n\r\n", {400}
    yield "NULs", bytes(1000), {400}
    yield "only line ends", b"\r\n" * 1000, {400, 431, None}
    yield "POST", with_line(b"POST /acp HTTP/1.1"), {405}
    yield "CONNECT", with_line(b"CONNECT 127.0.0.1:80 HTTP/1.1"), {400, 404, 405}
    yield "OPTIONS *", with_line(b"OPTIONS * HTTP/1.1"), {400, 404, 405}
    yield "a method of bytes", with_line(b"G\xffT /acp HTTP/1.1"), {400}
    yield "a path of bytes", with_line(b"GET /\xff HTTP/1.1"), {400}
    yield "a path that climbs", with_line(b"GET /../../etc/passwd HTTP/1.1"), {400, 404}
    yield "a URL of elsewhere", with_line(b"GET http://evil.example/acp HTTP/1.1"), {403}
    yield "a URL of https", with_line(b"GET https://127.0.0.1/acp HTTP/1.1"), {400}
    yield "a URL with a user", with_line(b"GET http://127.0.0.1@evil.example/acp HTTP/1.1"), {403}
    yield "a URL of nowhere", with_line(b"GET http:///acp HTTP/1.1"), {403}
    yield "a length below zero", good[:-2] + b"Content-Length: -1\r\n\r\n", {400}
    yield "two lengths", good[:-2] + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", {400}
    yield (
        "a length and chunks",
        good[:-2] + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        {400, 501, 101},
    )
    yield "an unknown coding", good[:-2] + b"Transfer-Encoding: gzip\r\n\r\n", {400, 501}
    yield "a session name of bytes", with_line(b"GET /chat?session=%ff%00%F0%9F HTTP/1.1"), {101, 400}
    yield "a query of nothing", with_line(b"GET /chat?&&=&session HTTP/1.1"), {101, 400}


NAMES = [name for name, _, _ in heads(1)]


@pytest.mark.parametrize("name", NAMES)
def test_case_54_and_others(program, bystander, name):
    data, codes = next((data, codes) for other, data, codes in heads(program.port) if other == name)
    with Raw(program.port) as raw:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            raw.send(data)
        assert raw.status() in codes
    assert bystander.ask("still here") == "still here"
    assert "a connection failed" not in program.text
    assert "Traceback" not in program.text


def test_a_target_may_be_absolute_and_its_host_is_the_one_that_counts(program):
    """RFC 9112 section 3.2.2: the `Host` header beside it says nothing, neither for it nor against it."""
    for authority, host, status in (
        (f"127.0.0.1:{program.port}", "127.0.0.1", 200),
        ("localhost", "evil.example", 200),
        ("evil.example", "127.0.0.1", 403),
    ):
        with Raw(program.port) as raw:
            raw.send(f"GET http://{authority}/livez HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert raw.status() == status
        with Raw(program.port) as raw:
            raw.send(request_head(program.port, f"http://{authority}/chat?session=absolute", Host=host))
            assert raw.status() == (101 if status == 200 else status)
        with Raw(program.port) as raw:
            raw.send(
                request_head(program.port, f"http://{authority}/acp", Host=host, Origin=f"http://{authority}")
            )
            assert raw.status() == (101 if status == 200 else status)


def test_case_54_frames_right_behind_the_head(program, bystander):
    """A client must wait for its answer (RFC 6455 section 4.1)."""
    for rest in (b"\x81\x85\0\0\0\0hello", b"x", b"GET / HTTP/1.1\r\n\r\n"):
        with Raw(program.port) as raw:
            raw.send(request_head(program.port, "/chat?session=eager") + rest)
            assert raw.status() == 400
    assert bystander.ask("still here") == "still here"


class Strangers:
    """Sockets that came and are no good."""

    def __init__(self, port):
        self.port = port
        self.raws = []

    def connect(self, data):
        raw = Raw(self.port)
        raw.send(data)
        self.raws.append(raw)
        return raw

    def gone(self):
        for raw in self.raws:
            raw.hang_up()


def test_case_55_no_descriptor_of_theirs_stays(tmp_path):
    with Program(tmp_path) as program, program.chat() as chat:
        assert chat.ask("before") == "before"
        wait_until(lambda: descriptors(program.pid) == descriptors(program.pid))
        before = descriptors(program.pid)
        strangers = Strangers(program.port)
        try:
            head = request_head(program.port)
            rejected = [
                strangers.connect(request_head(program.port, Origin="http://evil.example")) for _ in range(50)
            ]
            halves = [strangers.connect(head[: 20 + number % 100]) for number in range(200)]
            for number in range(100):
                strangers.connect(head[:40] if number % 2 else b"").hang_up()
            assert {raw.status() for raw in rejected} == {403}
            # Meanwhile others come in.
            with program.chat("meanwhile") as other:
                assert other.ask("hello") == "hello"
            wait_until(lambda: descriptors(program.pid) <= before, HANDSHAKE_SECONDS + LINGER_SECONDS + 20)
            assert descriptors(program.pid) == before
            for raw in halves:
                assert raw.status() is None
        finally:
            strangers.gone()
        assert chat.ask("after") == "after"
        assert program.get("/livez")[1].count('"connections": 1') == 1


async def test_case_55_no_task_of_theirs_stays(autojump_clock):
    def tasks():
        return trio.lowlevel.current_statistics().tasks_living

    with trio.fail_after(120):
        async with open_gateway() as lab:
            chat = await lab.chat()
            await chat.send("before")
            assert await chat.receive() == "before"
            before = tasks()
            head = request_head(1)
            streams = []
            for number in range(350):
                stream = await lab.listener.connect()
                streams.append(stream)
                if number < 50:
                    await stream.send_all(request_head(1, Origin="http://evil.example"))
                elif number < 150:
                    await stream.send_all(head[: number % 100])
                    await stream.aclose()
                else:
                    await stream.send_all(head[: 5 + number % 100])
            await trio.sleep(0.1)
            assert tasks() >= before + 250
            await trio.sleep(HANDSHAKE_SECONDS + LINGER_SECONDS + 0.1)
            assert tasks() == before
            await chat.send("after")
            assert await chat.receive() == "after"
            for stream in streams:
                await stream.aclose()


async def test_case_55_they_are_bounded_meanwhile(autojump_clock):
    """More than `max_connections` that say nothing: the rest is turned away at the door, until their time is up."""
    config = Config(server=ServerConfig(max_connections=20))
    with trio.fail_after(120):
        async with open_gateway(config) as lab:
            await trio.testing.wait_all_tasks_blocked()
            before = trio.lowlevel.current_statistics().tasks_living
            streams = [await lab.listener.connect() for _ in range(100)]
            await trio.sleep(0.1)
            assert trio.lowlevel.current_statistics().tasks_living <= before + 20
            assert [await stream.receive_some(1) for stream in streams[20:]] == [b""] * 80
            await trio.sleep(HANDSHAKE_SECONDS + LINGER_SECONDS)
            chat = await lab.chat()
            await chat.send("hello")
            assert await chat.receive() == "hello"


def test_case_55_also_under_a_storm(program, bystander):
    """Eight threads that connect, send rubbish and hang up."""
    before = descriptors(program.pid)
    rubbish = [data[:2000] for _, data, _ in heads(program.port)]

    def storm():
        for data in rubbish:
            with contextlib.suppress(OSError), Raw(program.port) as raw:
                raw.send(data)

    threads = [threading.Thread(target=storm) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert bystander.ask("still here") == "still here"
    wait_until(lambda: descriptors(program.pid) <= before)
    assert "a connection failed" not in program.text
