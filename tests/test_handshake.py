"""The request head over memory streams: whatever a stranger sends is a head, a refusal, or nothing."""

import base64

import pytest
import trio
import trio.testing
import wsproto
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_trio.auth import check_origin
from gateway_trio.config import ServerConfig
from gateway_trio.handshake import HEAD_BYTES, BadRequest, Head, read_head, upgrade, wants_upgrade

KEY = base64.b64encode(b"0123456789abcdef")
WEBSOCKET = {
    b"Host": b"localhost:8765",
    b"Upgrade": b"websocket",
    b"Connection": b"keep-alive, Upgrade",
    b"Sec-WebSocket-Version": b"13",
    b"Sec-WebSocket-Key": KEY,
}


def raw(target=b"/acp", method=b"GET", **changes):
    """A WebSocket request; `changes` replace headers, None leaves one out."""
    headers = {**WEBSOCKET, **{name.replace("_", "-").encode(): value for name, value in changes.items()}}
    lines = [b"%s: %s\r\n" % item for item in headers.items() if item[1] is not None]
    return b"%s %s HTTP/1.1\r\n%s\r\n" % (method, target, b"".join(lines))


async def read(*pieces, close=True):
    """Send pieces, one at a time, as the reader comes for them; return what `read_head` does."""
    ours, theirs = trio.testing.memory_stream_pair()
    found = None

    async def send():
        for piece in pieces:
            await ours.send_all(piece)
            await trio.testing.wait_all_tasks_blocked()
        if close:
            await ours.send_eof()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            found = await read_head(theirs)
            nursery.cancel_scope.cancel()
    return found


async def refusal(*pieces):
    """Return the answer with which it was refused; a refusal in a nursery comes in a group."""
    found = []
    with trio.fail_after(60):
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:

            async def send():
                for piece in pieces:
                    await ours.send_all(piece)
                await ours.send_eof()

            nursery.start_soon(send)
            with pytest.raises(BadRequest) as caught:
                await read_head(theirs)
            found.append(caught.value.answer)
            nursery.cancel_scope.cancel()
    return found[0]


async def test_a_head_is_taken_apart():
    head = await read(raw(b"/chat?session=a%20b&x"))
    assert (head.method, head.path, head.query, head.rest) == ("GET", "/chat", "session=a%20b&x", b"")
    assert head.headers["host"] == "localhost:8765"
    assert head.headers["sec-websocket-key"] == KEY.decode()
    assert wants_upgrade(head)


async def test_it_may_come_in_pieces_of_any_size():
    whole = raw()
    expected = await read(whole)
    assert await read(*(whole[i : i + 1] for i in range(len(whole)))) == expected
    assert await read(whole[:7], whole[7:-1], whole[-1:]) == expected


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        (b"http://127.0.0.1:8765/livez", "127.0.0.1:8765", "/livez", ""),
        (b"HTTP://[::1]/chat?session=a://b", "[::1]", "/chat", "session=a://b"),
        (b"http://evil.example/acp", "evil.example", "/acp", ""),
        (b"http://localhost@evil.example/acp", "localhost@evil.example", "/acp", ""),
        (b"http://localhost", "localhost", "", ""),
        (b"http://localhost?x=/acp", "localhost", "", "x=/acp"),
        (b"http:///acp", "", "/acp", ""),
        (b"/acp?http://evil.example/", "localhost:8765", "/acp", "http://evil.example/"),
        (b"http:/acp", "localhost:8765", "http:/acp", ""),
        (b"//evil.example/acp", "localhost:8765", "//evil.example/acp", ""),
    ],
)
async def test_the_host_of_an_absolute_target_stands_for_the_header(target, host, path, query):
    head = await read(raw(target))
    assert (head.headers["host"], head.path, head.query) == (host, path, query)


@pytest.mark.parametrize("scheme", [b"https", b"HTTPS", b"ws", b"wss", b"ftp"])
async def test_an_absolute_target_of_another_scheme_is_400(scheme):
    assert (await refusal(raw(scheme + b"://localhost:8765/acp"))).status == 400


async def test_what_comes_behind_the_head_is_kept():
    assert (await read(raw() + b"\x81\x85frame")).rest == b"\x81\x85frame"


async def test_a_header_that_comes_twice_is_joined():
    twice = raw().replace(b"Connection: keep-alive, Upgrade", b"Connection: keep-alive\r\nConnection: Upgrade")
    head = await read(twice)
    assert head.headers["connection"] == "keep-alive, Upgrade"
    assert wants_upgrade(head)


async def test_one_that_goes_away_without_a_word_is_nothing():
    assert await read() is None


class _Broken(trio.abc.ReceiveStream):
    """A stream whose peer resets it in the middle of its request."""

    def __init__(self):
        self._pieces = [b"GET / HTTP/1.1\r\n"]

    async def receive_some(self, max_bytes=None):
        await trio.lowlevel.checkpoint()
        if not self._pieces:
            raise trio.BrokenResourceError("reset")
        return self._pieces.pop()

    async def aclose(self):
        await trio.lowlevel.checkpoint()


async def test_one_that_breaks_off_is_nothing():
    with trio.fail_after(60):
        assert await read_head(_Broken()) is None


async def test_a_head_that_is_too_long_is_431_and_no_more_of_it_is_read():
    answer = await refusal(raw(X=b"x" * (HEAD_BYTES + 4096)))  # a receive more than the limit
    assert answer.status == 431
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(b"GET / HTTP/1.1\r\nX: " + b"x" * 10 * HEAD_BYTES)
    with trio.fail_after(60), pytest.raises(BadRequest) as caught:
        await read_head(theirs)
    assert caught.value.answer.status == 431
    assert len(await theirs.receive_some(11 * HEAD_BYTES)) >= 8 * HEAD_BYTES


def of_size(size):
    """A request whose head has exactly so many bytes."""
    return raw(X=b"x" * (size - len(raw(X=b""))))


@pytest.mark.parametrize("piece", [1000, HEAD_BYTES, 2 * HEAD_BYTES])
async def test_the_limit_is_exact_however_it_comes(piece):
    def pieces(sent):
        return [sent[at : at + piece] for at in range(0, len(sent), piece)]

    head = await read(*pieces(of_size(HEAD_BYTES) + b"behind it"))
    assert len(head.headers["x"]) == HEAD_BYTES - len(raw(X=b""))
    assert (await refusal(*pieces(of_size(HEAD_BYTES + 1)))).status == 431
    assert (await refusal(*pieces(of_size(HEAD_BYTES + 2000)))).status == 431


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1 x\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        raw().replace(b"Host: localhost:8765", b"Host: localhost\r\nHost: evil.example"),
        raw().replace(b"Host: localhost:8765", b"Host: localhost\r\nhost: localhost"),
        raw(X=b"\xff"),
        raw(X="é".encode()),
        raw(Origin=b"http://\xe9vil.example"),
    ],
)
async def test_what_is_no_request_is_400_with_a_reason_in_ascii(sent):
    answer = await refusal(sent)
    assert answer.status == 400
    assert answer.body.isascii()
    assert len(answer.body) > 10


#: Of §16 of the design: each ends a bare trio-websocket server.
DEADLY = {
    "host": raw(Host=b"\xff"),
    "punycode": raw(Host=b"xn--a-ecp.ru"),
    "connection": raw(Connection=b"Upgrade, \xff"),
    "connection of two bytes": raw(Connection="Upgrade, é".encode()),
    "subprotocol": raw(Sec_WebSocket_Protocol=b"\xff"),
    "subprotocols": raw(Sec_WebSocket_Protocol=b"a, \xc3\xa9"),
    "extension": raw(Sec_WebSocket_Extensions=b"permessage-deflate; \xff"),
}


@pytest.mark.parametrize("sent", DEADLY.values(), ids=DEADLY)
async def test_what_wsproto_trips_over_never_reaches_it(sent):
    """Case 54. The one that is ASCII is a host that we do not answer for, unless it is listed."""
    bare = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    with pytest.raises(UnicodeError):
        bare.receive_data(sent)
        list(bare.events())
    if not sent.isascii():
        assert (await refusal(sent)).status == 400
        return
    head = await read(sent)
    server = ServerConfig()
    assert check_origin(server, reached="127.0.0.1", host=head.headers["host"], origin=None) is not None
    _accepted(upgrade(head))


def _accepted(sent):
    """Look that wsproto takes it for a request, with nothing more in it."""
    websocket = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    websocket.receive_data(sent)
    (request,) = websocket.events()
    assert isinstance(request, wsproto.events.Request)
    assert (request.extensions, request.subprotocols) == ([], [])
    answer = websocket.send(wsproto.events.AcceptConnection())
    assert answer.startswith(b"HTTP/1.1 101")


async def test_a_good_request_reaches_wsproto_with_nothing_of_the_clients_but_its_key():
    head = await read(
        raw(b"/acp?x", Cookie=b"secret", Sec_WebSocket_Protocol=b"chat", Sec_WebSocket_Extensions=b"x-thing; a=b")
    )
    sent = upgrade(head)
    assert KEY in sent
    for word in (b"secret", b"chat", b"x-thing", b"localhost", b"/acp"):
        assert word not in sent
    _accepted(sent)


@pytest.mark.parametrize("more", [b"\x81\x82\x00\x00\x00\x00hi", b"\r\n", b"GET / HTTP/1.1\r\n"])
async def test_a_client_that_does_not_wait_for_the_answer_is_refused(more):
    """wsproto throws away what stands behind the head, so that the next frame would begin in the middle of one."""
    head = await read(raw() + more)
    assert head.rest == more
    with pytest.raises(BadRequest) as caught:
        upgrade(head)
    assert caught.value.answer.status == 400


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"Sec_WebSocket_Version": None}, 426),
        ({"Sec_WebSocket_Version": b"8"}, 426),
        ({"Sec_WebSocket_Version": b"13, 8"}, 426),
        ({"Sec_WebSocket_Version": b"013"}, 426),
        ({"Sec_WebSocket_Key": None}, 400),
        ({"Sec_WebSocket_Key": b""}, 400),
        ({"Sec_WebSocket_Key": b"x"}, 400),
        ({"Sec_WebSocket_Key": b"not base64 !!"}, 400),
        ({"Sec_WebSocket_Key": base64.b64encode(b"15 bytes, no mo")}, 400),
        ({"Sec_WebSocket_Key": base64.b64encode(b"17 bytes, one mor")}, 400),
        ({"Sec_WebSocket_Key": KEY + b", " + KEY}, 400),
    ],
)
async def test_a_bad_version_or_key_is_refused_as_the_rfc_says(changes, status):
    head = await read(raw(**changes))
    with pytest.raises(BadRequest) as caught:
        upgrade(head)
    assert caught.value.answer.status == status
    assert (status == 426) == (("Sec-WebSocket-Version", "13") in caught.value.answer.headers)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, True),
        ({"Upgrade": b"WebSocket"}, True),
        ({"Upgrade": b"h2c, websocket"}, True),
        ({"Connection": b"upgrade"}, True),
        ({"Upgrade": None}, False),
        ({"Connection": None}, False),
        ({"Connection": b"close"}, False),
        ({"Upgrade": b"websockets"}, False),
        ({"Connection": b"not-upgrade"}, False),
    ],
)
async def test_who_wants_a_websocket(changes, wanted):
    assert wants_upgrade(await read(raw(**changes))) is wanted


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.binary(max_size=300)
    | st.builds(lambda k, v: raw(**{k: v}), st.sampled_from(["Host", "Upgrade", "X"]), st.binary(max_size=40))
)
def test_whatever_comes_is_a_head_a_refusal_or_nothing(sent):
    async def run():
        ours, theirs = trio.testing.memory_stream_pair()
        await ours.send_all(sent)
        await ours.send_eof()
        with trio.fail_after(60):
            try:
                head = await read_head(theirs)
            except BadRequest as bad:
                return bad.answer.status in (400, 431)
        return head is None or isinstance(head, Head)

    assert trio.run(run)
