"""Cases 56 and 57: frames that are no messages, messages that are too big; and the gateway lives."""

import contextlib
import json
import struct

import pytest
from raw import BINARY, CLOSE, PING, PONG, TEXT, Raw, close, frame

from harness import Program

MIB = 2**20


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    with Program(tmp_path_factory.mktemp("gateway"), "[agent]\nwords_per_second = 100000\n") as program:
        yield program


@pytest.fixture
def client(program):
    with initialized(program) as client:
        yield client


@pytest.fixture(autouse=True)
def _no_traceback(program):
    """Nothing that a client sends is an error of ours."""
    before = len(program.log)
    yield
    assert "Traceback" not in "".join(program.log[before:])
    assert "a connection failed" not in "".join(program.log[before:])


def initialized(program):
    """Connect, and take the notice of the phase that follows."""
    client = program.acp()
    client.until(lambda f: f.get("method") == "_gateway-trio/phase")
    return client


def strict(text):
    """Parse JSON as RFC 8259 has it."""

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def after(client, sent):
    """Send, then ask for the status; return the frames that come before that answer."""
    frames = []
    client.send(sent)
    client.websocket.send('{"jsonrpc":"2.0","id":"the end","method":"_gateway-trio/status"}')
    while True:
        frame = strict(client.websocket.recv(30))
        if frame.get("id") == "the end" and "result" in frame:
            return frames
        frames.append(frame)


NOT_MESSAGES = {
    "deep lists": ("[" * 100_000, -32700, None),
    "deep objects": ('{"a":' * 100_000, -32700, None),
    "deep and closed": ("[" * 100_000 + "]" * 100_000, -32700, None),
    "NaN": ("NaN", -32700, None),
    "NaN inside": ('{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":NaN}}', -32700, None),
    "Infinity": ('{"jsonrpc":"2.0","id":1,"method":"x","params":[-Infinity]}', -32700, None),
    "a number of many digits": ("9" * 10_000, -32700, None),
    "half a surrogate": ('{"jsonrpc":"2.0","id":1,"method":"\\ud800"}', -32700, None),
    "half a surrogate as id": ('{"jsonrpc":"2.0","id":"\\udc00","method":"x"}', -32700, None),
    "half a surrogate as key": ('{"jsonrpc":"2.0","id":1,"method":"x","params":{"\\ud800":1}}', -32700, None),
    "no JSON": ("{", -32700, None),
    "two values": ("{}{}", -32700, None),
    "a comment": ("/* {} */", -32700, None),
    "a byte order mark": ('\ufeff{"jsonrpc":"2.0","id":1,"method":"x"}', -32700, None),
    "nothing": ("", -32700, None),
    "blanks": (" \n ", -32700, None),
    "a batch": ('[{"jsonrpc":"2.0","id":1,"method":"_gateway-trio/status"}]', -32600, None),
    "an empty batch": ("[]", -32600, None),
    "a number": ("7", -32600, None),
    "null": ("null", -32600, None),
    "no version": ('{"id":1,"method":"x"}', -32600, 1),
    "version 1.0": ('{"jsonrpc":"1.0","id":1,"method":"x"}', -32600, 1),
    "a version that is a number": ('{"jsonrpc":2.0,"id":1,"method":"x"}', -32600, 1),
    "a method that is a number": ('{"jsonrpc":"2.0","id":1,"method":1}', -32600, 1),
    "no method": ('{"jsonrpc":"2.0","id":1}', -32600, 1),
    "an empty object": ("{}", -32600, None),
    "an id that is a list": ('{"jsonrpc":"2.0","id":[1],"method":"x"}', -32600, None),
    "an id that is true": ('{"jsonrpc":"2.0","id":true,"method":"x"}', -32600, None),
    "params that are a text": ('{"jsonrpc":"2.0","id":1,"method":"x","params":"y"}', -32600, 1),
    "an unknown method": ('{"jsonrpc":"2.0","id":1,"method":"no/such"}', -32601, 1),
    "an empty method": ('{"jsonrpc":"2.0","id":1,"method":""}', -32601, 1),
    "a method of ours that is none": ('{"jsonrpc":"2.0","id":1,"method":"_gateway-trio/"}', -32601, 1),
    "one of Python's": ('{"jsonrpc":"2.0","id":1,"method":"__class__"}', -32601, 1),
    "a notification as a request": ('{"jsonrpc":"2.0","id":1,"method":"session/cancel","params":{}}', -32601, 1),
    "a method twice": ('{"jsonrpc":"2.0","id":1,"method":"_gateway-trio/status","method":"no/such"}', -32601, 1),
    "an id that is too large for a float": ('{"jsonrpc":"2.0","id":1e400,"method":"no/such"}', None, None),
}


@pytest.mark.parametrize("name", NOT_MESSAGES)
def test_case_56_is_answered_with_an_error(client, name):
    text, code, id_ = NOT_MESSAGES[name]
    (answer,) = after(client, text)
    assert answer["id"] == id_
    if code is not None:
        assert answer["error"]["code"] == code
    assert len(answer["error"]["message"]) < 1000


NOT_ANSWERED = {
    "a response to nothing": '{"jsonrpc":"2.0","id":77,"result":{}}',
    "an error to nothing": '{"jsonrpc":"2.0","id":77,"error":{"code":1,"message":"x"}}',
    "a response with both": '{"jsonrpc":"2.0","id":null,"result":1,"error":2}',
    "an unknown notification": '{"jsonrpc":"2.0","method":"no/such"}',
    "a notification with bad params": '{"jsonrpc":"2.0","method":"session/cancel","params":{"sessionId":[]}}',
    "a request as a notification": '{"jsonrpc":"2.0","method":"session/new","params":{"cwd":"/"}}',
    "a drain as a notification": '{"jsonrpc":"2.0","method":"_gateway-trio/drain"}',
    "bytes": b'{"jsonrpc":"2.0","id":1,"method":"no/such"}',
    "no bytes": b"",
    "many bytes": bytes(100_000),
}


@pytest.mark.parametrize("name", NOT_ANSWERED)
def test_case_56_is_not_answered(program, client, name):
    assert after(client, NOT_ANSWERED[name]) == []
    assert client.call("_gateway-trio/status")["phase"] == "open"


def test_case_56_what_stands_twice_counts_as_its_last(client):
    (answer,) = after(client, '{"jsonrpc":"2.0","id":1,"id":2,"method":"no/such","method":"_gateway-trio/status"}')
    assert answer["id"] == 2
    assert answer["result"]["phase"] == "open"


@pytest.mark.parametrize("where", ["params", "block", "meta", "id"])
def test_case_56_of_any_depth(client, where):
    session = client.new_session()
    for depth in [*range(10, 900, 50), *range(900, 1010, 3), 5000]:
        deep = "[" * depth + "]" * depth
        text = {
            "params": f'{{"jsonrpc":"2.0","id":1,"method":"session/list","params":{deep}}}',
            "id": f'{{"jsonrpc":"2.0","id":{deep},"method":"session/list"}}',
            "block": f'{{"jsonrpc":"2.0","id":1,"method":"session/prompt","params":{{"sessionId":"{session}",'
            f'"prompt":[{{"type":"text","text":"hi","annotations":{deep}}}]}}}}',
            "meta": f'{{"jsonrpc":"2.0","id":1,"method":"session/prompt","params":{{"sessionId":"{session}",'
            f'"prompt":[{{"type":"text","text":"hi"}}],"_meta":{{"gateway-trio":{{"key":{deep},"onBusy":{deep}}}}}}}}}',
        }[where]
        client.send(text)
        while "method" in (answer := strict(client.websocket.recv(30))):
            pass
        assert answer["id"] in (1, None), depth
    assert client.call("_gateway-trio/status")["phase"] == "open"


def test_case_56_what_a_message_asks_for_may_be_odd(client):
    session = client.new_session()
    odd = ["\0", "\u202e", "😀", "\U0010ffff", "a\r\nb", "\x1b[31m", "x" * 500_000]
    for text in odd:
        client.frames.clear()
        assert client.prompt(session, text)["stopReason"] == "end_turn"
        assert client.text() == text


# --- below JSON: the frames themselves -------------------------------------------------------------------

BROKEN = {
    "a text that is no UTF-8": (frame(TEXT, b"\xff\xfe"), {1007}),
    "a text cut inside a character": (frame(TEXT, b"\xf0\x9d\x84"), {1007}),
    "a surrogate in UTF-8": (frame(TEXT, b"\xed\xa0\x80"), {1007}),
    "a frame with no mask": (frame(TEXT, b"{}", masked=False), {1002}),
    "reserved bits": (frame(TEXT, b"{}", reserved=4), {1002}),
    "all reserved bits": (frame(TEXT, b"{}", reserved=7), {1002}),
    "an unknown opcode": (frame(3, b"{}"), {1002}),
    "an unknown control opcode": (frame(11, b""), {1002}),
    "a long ping": (frame(PING, b"x" * 126), {1002}),
    "a ping in parts": (frame(PING, b"x", final=False), {1002}),
    "a part of nothing": (frame(0, b"x"), {1002}),
    "a message within a message": (frame(TEXT, b"a", final=False) + frame(TEXT, b"b"), {1002}),
    "a length with the highest bit": (b"\x81\xff" + b"\xff" * 8 + b"\0\0\0\0", {1002, 1009}),
    "a length of 64 bits for two bytes": (b"\x81\xff" + struct.pack("!Q", 2) + b"\0\0\0\0{}", {1002}),
    "a close with one byte": (frame(CLOSE, b"\x03"), {1002}),
    "a close that is no UTF-8": (close(1000, b"\xff"), {1002, 1007}),
    "close 0": (close(0), {1002}),
    "close 999": (close(999), {1002}),
    "close 1004": (close(1004), {1002, 1004}),
    "close 1005": (close(1005), {1002}),
    "close 1006": (close(1006), {1002}),
    "close 1015": (close(1015), {1002}),
    "close 2999": (close(2999), {1002, 2999}),
    "close 5000": (close(5000), {1002, 5000}),
    "close 65535": (close(65535), {1002, 65535}),
    "close without a code": (frame(CLOSE), {1005, 1000, "empty"}),
    "close 1000": (close(1000, b"bye"), {1000}),
    "close 4999": (close(4999), {4999}),
    "close 1012": (close(1012), {1012}),
}


def code_of(raw):
    """Read to the end; return the close frame's code, `empty` for one without, None if there was none."""
    code = None
    while (got := raw.frame()) is not None:
        if got[0] == CLOSE:
            code = struct.unpack("!H", got[1][:2])[0] if got[1] else "empty"
    return code


@pytest.mark.parametrize("path", ["/acp", "/chat?session=broken"])
@pytest.mark.parametrize("name", BROKEN)
def test_case_56_broken_frames_end_their_own_connection(program, client, path, name):
    data, codes = BROKEN[name]
    session = client.new_session()
    turn = client.ask_prompt(session, "one two three")
    with Raw(program.port, path) as raw:
        raw.send(data)
        assert code_of(raw) in codes
    assert client.answer(turn)["stopReason"] == "end_turn"


@pytest.mark.parametrize(("name", "code"), [("a text that is no UTF-8", 1007), ("a frame with no mask", 1002)])
def test_case_56_a_broken_frame_is_told_why(program, name, code):
    """RFC 6455 section 7.1.7: an endpoint that fails the connection should send a close frame first."""
    with Raw(program.port, "/acp") as raw:
        raw.send(BROKEN[name][0])
        assert code_of(raw) == code


def test_case_56_no_close_code_cancels_anything(tmp_path):
    with Program(tmp_path, "[agent]\nwords_per_second = 20\n") as program, program.acp() as client:
        turns = []
        for code in (1000, 1001, 1012, 4000, 4101, 4999):
            session = f"s{code}"
            with Raw(program.port, f"/chat?session={session}") as raw:
                raw.send(frame(TEXT, b"w " * 60))
                raw.send(frame(TEXT, b"/status"))
                assert b"a turn runs" in raw.until(TEXT)
                raw.send(close(code))
                assert code_of(raw) == code
            turns.append(session)
        listed = {s["title"]: s["sessionId"] for s in client.call("session/list")["sessions"]}
        assert client.call("_gateway-trio/status")["turns"] == len(turns)
        for session in turns:
            client.frames.clear()
            client.call("session/load", {"sessionId": listed[session], "cwd": "/"})
            client.until_state("completed")
            assert client.text() == "w " * 60 or client.text().split() == ["w"] * 60


def test_case_56_a_message_in_parts_is_one(program):
    with Raw(program.port, "/chat?session=parts") as raw:
        for byte in "häll".encode():
            raw.send(frame(TEXT if byte == ord("h") else 0, bytes([byte]), final=False))
            raw.send(frame(PING, bytes([byte])))
            assert raw.until(PONG) == bytes([byte])
        raw.send(frame(0, b"o"))
        assert raw.until(TEXT) == "hällo".encode()
        raw.send(frame(BINARY, b"x", final=False) + frame(0, b"y") + frame(TEXT, b"") + frame(TEXT, b"next"))
        assert raw.until(TEXT) == b"next"


# --- case 57 ---------------------------------------------------------------------------------------------


def padded(size, character=b" "):
    """A valid request of so many bytes."""
    request = b'{"jsonrpc":"2.0","id":1,"method":"_gateway-trio/status","params":{"x":"@"}}'
    room = size - len(request) + 1
    return request.replace(b"@", character * (room // len(character)) + b" " * (room % len(character)))


TOO_BIG = {
    "2 MB": frame(TEXT, padded(2 * MIB)),
    "one byte too many": frame(TEXT, padded(MIB + 1)),
    "few characters of many bytes": frame(TEXT, padded(MIB + 2, "é".encode())),
    "fewer of more": frame(TEXT, padded(2 * MIB, "𝄞".encode())),
    "in parts": frame(TEXT, padded(2 * MIB)[:MIB], final=False) + frame(0, padded(2 * MIB)[MIB:]),
    "2 MB of bytes": frame(BINARY, bytes(2 * MIB)),
    "4 GB, it says": frame(BINARY, b"x" * 70_000, length=2**32),
}


@pytest.mark.parametrize("path", ["/acp", "/chat?session=big"])
@pytest.mark.parametrize("name", TOO_BIG)
def test_case_57_too_big_is_1009(program, client, path, name):
    with Raw(program.port, path) as raw:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            raw.send(TOO_BIG[name])
            if name == "4 GB, it says":
                for _ in range(40):
                    raw.send(b"x" * 65536)
        assert code_of(raw) == 1009
    assert client.call("_gateway-trio/status")["phase"] == "open"


def test_case_57_what_just_fits_is_taken(client):
    for text in (padded(MIB), padded(MIB, "é".encode()), padded(MIB, "𝄞".encode())):
        assert len(text) == MIB
        (answer,) = after(client, text.decode())
        assert answer["result"]["phase"] == "open"


def test_case_57_the_limit_is_the_configs(tmp_path):
    with (
        Program(tmp_path, "[server]\nport = 0\nmax_message_bytes = 2000\n") as program,
        initialized(program) as client,
    ):
        (answer,) = after(client, padded(2000).decode())
        assert answer["result"]["phase"] == "open"
        client.send(padded(2001).decode())
        assert client.code == 1009
