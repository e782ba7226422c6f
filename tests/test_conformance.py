"""RFC 6455, frame by frame, on a bare socket to a real gateway: small, and of the kind of the Autobahn test suite.

`make test-autobahn` runs that suite itself. Here each frame has the one right answer, by section of the RFC; and
after each, a client on another connection is answered, the process lives, and its log has no traceback.
"""

import base64
import hashlib
import itertools
import socket
import struct

import pytest
from processes import wait_until
from raw import BINARY, CLOSE, PING, PONG, TEXT, Raw, close, frame, request_head

from harness import Program

CONTINUATION = 0
PATHS = ["/acp", "/chat?session=conformance"]
MOST = 65536  # max_message_bytes here


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    config = f"[server]\nport = 0\nmax_message_bytes = {MOST}\n[agent]\nwords_per_second = 100000\n"
    with Program(tmp_path_factory.mktemp("gateway"), config) as program:
        yield program


@pytest.fixture(scope="module")
def other(program):
    """A client that has nothing to do with it."""
    with program.chat("other") as other:
        yield other


@pytest.fixture(autouse=True)
def _undisturbed(program, other):
    before, numbers = len(program.log), itertools.count()
    yield
    text = f"still here {next(numbers)}"
    assert other.ask(text) == text
    assert program.process.poll() is None
    said = "".join(program.log[before:])
    assert "Traceback" not in said
    assert "a connection failed" not in said


def ends_with(raw):
    """Read to the end; return the payload of the close frame, which must be there and be the last."""
    frames = []
    while (got := raw.frame()) is not None:
        frames.append(got)
    assert [opcode for opcode, _ in frames].count(CLOSE) == 1
    opcode, payload = frames[-1]
    assert opcode == CLOSE, "nothing follows a close frame (section 5.5.1)"
    return payload


def code_of(raw):
    payload = ends_with(raw)
    assert len(payload) >= 2
    payload[2:].decode()  # section 5.5.1: a reason is UTF-8
    return struct.unpack("!H", payload[:2])[0]


def fails(program, path, *data, code):
    with Raw(program.port, path) as raw:
        raw.send(b"".join(data))
        assert code_of(raw) == code


def echoed(raw, text):
    """Send a prompt, whole; the agent says it again."""
    raw.send(frame(TEXT, text.encode()))
    return raw.until(TEXT).decode() == text


# --- 4: the handshake ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
def test_4_2_2_the_answer_to_a_handshake(program, path):
    """The key is answered as it must be; no extension and no subprotocol that we do not speak (sections 9.1, 4.2.2)."""
    key = base64.b64encode(b"sixteen bytes of").decode()
    head = request_head(
        program.port,
        path,
        Sec_WebSocket_Key=key,
        Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits",
        Sec_WebSocket_Protocol="chat, superchat",
    )
    with Raw(program.port) as raw:
        raw.send(head)
        lines = raw.head().decode().lower().split("\r\n")
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    assert lines[0].startswith("http/1.1 101 ")
    assert f"sec-websocket-accept: {base64.b64encode(digest).decode().lower()}" in lines
    assert not [line for line in lines if line.startswith(("sec-websocket-extensions", "sec-websocket-protocol"))]


# --- 5.1, 5.2: masks, bits, opcodes, lengths -------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
def test_5_1_a_client_that_does_not_mask_is_1002(program, path, opcode):
    fails(program, path, frame(opcode, b"\x03\xe8", masked=False), code=1002)


@pytest.mark.parametrize("reserved", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, CLOSE, PING, PONG])
def test_5_2_a_reserved_bit_is_1002(program, opcode, reserved):
    fails(program, "/acp", frame(opcode, b"\x03\xe8", reserved=reserved), code=1002)


@pytest.mark.parametrize("payload", [b"", b"x"])
@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_5_2_a_reserved_opcode_is_1002(program, opcode, payload):
    fails(program, "/acp", frame(opcode, payload), code=1002)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535])
def test_5_2_a_length_must_be_minimal(program, length):
    """What fits into 7 bits must not come in 16 or 64, nor what fits into 16 in 64: 1002."""
    key = bytes(4)
    wide = [b"\x81\xff" + struct.pack("!Q", length)]
    if length < 126:
        wide.append(b"\x81\xfe" + struct.pack("!H", length))
    for head in wide:
        fails(program, "/chat?session=lengths", head + key + b"x" * length, code=1002)


@pytest.mark.parametrize("length", [1, 125, 126, 127, 65535, 65536])
def test_5_2_every_form_of_length_is_read(program, length):
    with Raw(program.port, f"/chat?session=length-{length}") as raw:
        text = "x" * length
        raw.send(frame(TEXT, text.encode()))
        said = raw.until(TEXT).decode()
        while len(said) < length:  # over /chat a long answer comes in several messages
            said += raw.until(TEXT).decode()
        assert said == text


def test_5_2_a_length_with_its_highest_bit_set_is_1002(program):
    fails(program, "/acp", b"\x81\xff" + b"\x80" + bytes(7) + bytes(4), code=1002)


# --- 5.4: fragments --------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
def test_5_4_fragments_make_one_message_and_pings_may_come_between(program, parts):
    text = b"in so many parts"
    size = -(-len(text) // parts)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    with Raw(program.port, f"/chat?session=parts-{parts}") as raw:
        for number, piece in enumerate(pieces):
            final = number == len(pieces) - 1
            raw.send(frame(TEXT if number == 0 else CONTINUATION, piece, final=final))
            if not final:
                raw.send(frame(PING, bytes([number])) + frame(PONG, b"nobody asked"))
                assert raw.frame() == (PONG, bytes([number]))
        assert raw.until(TEXT) == text


def test_5_4_fragments_may_be_empty(program):
    with Raw(program.port, "/chat?session=empty") as raw:
        raw.send(frame(TEXT, b"", final=False) + frame(CONTINUATION, b"", final=False))
        raw.send(frame(CONTINUATION, b"here", final=False) + frame(CONTINUATION, b""))
        assert raw.until(TEXT) == b"here"


def test_5_4_binary_fragments_are_one_message_too(program):
    """Neither dialect speaks binary: it is read to its end and left alone."""
    for path in PATHS:
        with Raw(program.port, path) as raw:
            raw.send(frame(BINARY, b"\xff", final=False) + frame(CONTINUATION, b"\xfe") + frame(PING, b"then"))
            assert raw.until(PONG) == b"then"


BROKEN_FRAGMENTS = {
    "a continuation of nothing": frame(CONTINUATION, b"x"),
    "one that is not the last": frame(CONTINUATION, b"x", final=False),
    "a continuation after the end": frame(TEXT, b"x", final=False) + frame(CONTINUATION, b"y") * 2,
    "a text within a text": frame(TEXT, b"x", final=False) + frame(TEXT, b"y"),
    "a binary within a text": frame(TEXT, b"x", final=False) + frame(BINARY, b"y"),
    "a text within a binary": frame(BINARY, b"x", final=False) + frame(TEXT, b"y", final=False),
}


@pytest.mark.parametrize("name", BROKEN_FRAGMENTS)
def test_5_4_fragments_in_no_order_are_1002(program, name):
    fails(program, "/acp", BROKEN_FRAGMENTS[name], code=1002)


# --- 5.5: control frames ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [126, 127, 65536])
@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_5_5_a_control_frame_of_over_125_bytes_is_1002(program, opcode, size):
    fails(program, "/acp", frame(opcode, b"\x03\xe8" + b"x" * (size - 2)), code=1002)


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_5_5_a_control_frame_in_fragments_is_1002(program, opcode):
    fails(program, "/acp", frame(opcode, b"\x03\xe8", final=False), code=1002)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(125)), b"\xff" * 125, "é".encode()])
def test_5_5_2_a_ping_is_answered_with_its_payload(program, path, payload):
    with Raw(program.port, path) as raw:
        raw.send(frame(PING, payload))
        assert raw.until(PONG) == payload


def test_5_5_2_many_pings_are_answered_in_their_order(program):
    with Raw(program.port, "/acp") as raw:
        raw.send(b"".join(frame(PING, b"%d" % number) for number in range(100)))
        assert [raw.until(PONG) for _ in range(100)] == [b"%d" % number for number in range(100)]


@pytest.mark.parametrize("payload", [b"", b"nobody asked", b"\xff" * 125])
def test_5_5_3_a_pong_that_nobody_asked_for_is_nothing(program, payload):
    with Raw(program.port, "/chat?session=pongs") as raw:
        raw.send(frame(PONG, payload) * 3)
        assert echoed(raw, "after it")


# --- 5.5.1, 7: the close ---------------------------------------------------------------------------------

GOOD_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4101, 4999]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("code", GOOD_CODES)
def test_5_5_1_a_close_is_answered_with_its_code(program, path, code):
    with Raw(program.port, path) as raw:
        raw.send(close(code, b"bye"))
        assert code_of(raw) == code


@pytest.mark.parametrize("reason", [b"", b"x" * 123, "ünïcödé".encode()])
def test_5_5_1_a_close_may_have_a_reason(program, reason):
    with Raw(program.port, "/acp") as raw:
        raw.send(close(1000, reason))
        assert code_of(raw) == 1000


def test_5_5_1_a_close_without_a_code_is_answered(program):
    with Raw(program.port, "/acp") as raw:
        raw.send(frame(CLOSE))
        assert ends_with(raw) in (b"", struct.pack("!H", 1000))


@pytest.mark.parametrize("path", PATHS)
def test_5_5_1_a_close_of_one_byte_is_1002(program, path):
    fails(program, path, frame(CLOSE, b"\x03"), code=1002)


@pytest.mark.parametrize("reason", [b"\xff", b"bye \xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
def test_5_5_1_a_close_whose_reason_is_no_utf8_is_1007(program, reason):
    fails(program, "/acp", close(1000, reason), code=1007)


BAD_CODES = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 65535]


@pytest.mark.parametrize("code", BAD_CODES)
def test_7_4_a_code_that_may_not_be_sent_is_1002(program, code):
    """1005, 1006 and 1015 are never on the wire; 1016 to 2999 are reserved, and others do not exist."""
    fails(program, "/acp", close(code), code=1002)


ENDS = {"close": close(1000), "no-code": frame(CLOSE), "no-frame": frame(3), "no-utf8": frame(TEXT, b"\xff")}


@pytest.mark.parametrize("count", [1, 2, 20])
@pytest.mark.parametrize("end", ENDS)
def test_5_5_1_what_came_before_the_end_is_taken(program, end, count):
    """Whoever says something and leaves, in one breath, was heard."""
    session = f"before-{count}-{end}"
    with Raw(program.port, f"/chat?session={session}") as raw:
        raw.send(b"".join(frame(TEXT, b"word %d" % number) for number in range(count)) + ENDS[end])
        ends_with(raw)
    wait_until(lambda: program.scrape()("turns_running") == program.scrape()("turns_waiting") == 0)
    with program.chat(session) as chat:
        said = chat.ask("/history 100")
    assert [number for number in range(count) if f"you: word {number}" not in said] == []


@pytest.mark.parametrize("path", PATHS)
def test_5_5_1_what_comes_behind_a_close_is_not_looked_at(program, path):
    """Neither a prompt nor what is no frame."""
    with Raw(program.port, "/chat?session=behind") as raw:
        raw.send(close(1000) + frame(TEXT, b"never to be said") + frame(PING, b"x"))
        assert code_of(raw) == 1000
    with Raw(program.port, path) as raw:
        raw.send(close(1001) + b"\xff" * 1000)
        assert code_of(raw) == 1001
    with program.chat("behind") as chat:
        assert "never" not in chat.ask("/history")


def test_7_1_1_the_server_closes_the_socket_first(program):
    with Raw(program.port, "/acp") as raw:
        raw.send(close(1000))
        assert code_of(raw) == 1000, "and then comes the end of the stream, though we have not closed"


# --- 8.1: UTF-8 ------------------------------------------------------------------------------------------

NO_UTF8 = {
    "a lone continuation": b"\x80",
    "a start and no end": b"\xc3",
    "three of four": b"\xf0\x9d\x84",
    "overlong of two": b"\xc0\xaf",
    "overlong of three": b"\xe0\x80\xaf",
    "overlong of four": b"\xf0\x80\x80\xaf",
    "a surrogate": b"\xed\xa0\x80",
    "a surrogate pair": b"\xed\xa1\x8c\xed\xbe\xb4",
    "over U+10FFFF": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "FE": b"\xfe",
    "FF": b"\xff",
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", NO_UTF8)
def test_8_1_a_text_that_is_no_utf8_is_1007(program, path, name):
    fails(program, path, frame(TEXT, b"hello " + NO_UTF8[name]), code=1007)


@pytest.mark.parametrize("name", NO_UTF8)
def test_8_1_nor_is_it_in_fragments_of_a_byte(program, name):
    data = NO_UTF8[name]
    parts = [frame(TEXT, b"hello ", final=False)]
    parts += [frame(CONTINUATION, bytes([byte]), final=False) for byte in data]
    fails(program, "/acp", *parts, frame(CONTINUATION, b""), code=1007)


def test_8_1_it_is_told_before_the_message_is_whole(program):
    with Raw(program.port, "/acp") as raw:
        raw.send(frame(TEXT, "hé".encode()[:2], final=False) + frame(CONTINUATION, b"\xff", final=False))
        assert code_of(raw) == 1007


def test_8_1_it_is_told_before_the_frame_is_whole(program):
    """So that nobody has to wait for the rest of a megabyte."""
    with Raw(program.port, "/acp") as raw:
        raw.send(frame(TEXT, b"\xce\xba\xf4\x90\x80\x80", length=1000))
        assert code_of(raw) == 1007


@pytest.mark.parametrize("text", ["κόσμε", "\U0010ffff", "\ufffe\uffff", "\x7f\u0080\u07ff\u0800\uffff\U00010000"])
def test_8_1_a_character_may_be_cut_between_fragments(program, text):
    with Raw(program.port, "/chat?session=utf8") as raw:
        for number, byte in enumerate(text.encode()):
            raw.send(frame(CONTINUATION if number else TEXT, bytes([byte]), final=False))
        raw.send(frame(CONTINUATION, b""))
        assert raw.until(TEXT).decode() == text


def test_8_1_binary_need_not_be_utf8_nor_a_ping(program):
    with Raw(program.port, "/acp") as raw:
        raw.send(frame(BINARY, b"\xff\xfe") + frame(PING, b"\xff\xfe"))
        assert raw.until(PONG) == b"\xff\xfe"


# --- 10.4: too much --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_10_4_a_message_that_is_too_big_is_1009(program, path, opcode):
    fails(program, path, frame(opcode, b"x" * (MOST + 1)), code=1009)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_10_4_also_in_fragments_and_before_it_is_whole(program, opcode):
    parts = [frame(opcode, b"x" * 30_000, final=False), *[frame(CONTINUATION, b"x" * 30_000, final=False)] * 2]
    fails(program, "/acp", *parts, code=1009)


# --- how bytes come --------------------------------------------------------------------------------------


def test_frames_may_come_byte_by_byte(program):
    with Raw(program.port, "/chat?session=bytes") as raw:
        raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = frame(PING, b"p") + frame(TEXT, b"slow" * 50, final=False) + frame(CONTINUATION, b" and whole")
        for byte in data:
            raw.send(bytes([byte]))
        assert raw.until(PONG) == b"p"
        assert raw.until(TEXT) == b"slow" * 50 + b" and whole"
        for byte in close(1000):
            raw.send(bytes([byte]))
        assert code_of(raw) == 1000


def test_many_frames_may_come_at_once(program):
    with Raw(program.port, "/acp") as raw:
        status = b'{"jsonrpc":"2.0","id":%d,"method":"no/such"}'
        raw.send(b"".join(frame(TEXT, status % number) for number in range(200)) + frame(PING, b"last"))
        answers = [raw.until(TEXT) for _ in range(200)]
        assert all(
            b'"id":%d,' % number in answer or b'"id":%d}' % number in answer
            for number, answer in enumerate(answers)
        )


HALVES = {
    "half a head": frame(TEXT, b"x" * 1000)[:3],
    "half a mask": frame(TEXT, b"x" * 1000)[:6],
    "half a text": frame(TEXT, b"x" * 1000)[:500],
    "half a message": frame(TEXT, b"x" * 1000, final=False),
    "half a ping": frame(PING, b"x" * 100)[:50],
    "half a close": close(1000, b"x" * 100)[:50],
}


@pytest.mark.parametrize("how", ["shut", "hang up", "reset"])
@pytest.mark.parametrize("name", HALVES)
def test_a_frame_may_never_be_whole(program, name, how):
    """The stream's end in mid-frame is the end of the connection (section 7.1.1), and of nothing else."""
    raw = Raw(program.port, "/acp")
    raw.send(HALVES[name])
    if how == "shut":
        raw.socket.shutdown(socket.SHUT_WR)
        while raw.frame() is not None:
            pass
    raw.reset() if how == "reset" else raw.hang_up()
    with program.acp() as client:
        client.call("_gateway-trio/status")


def test_at_the_end_nobody_is_left(program, other):
    wait_until(lambda: program.scrape()("connections") == 1)
