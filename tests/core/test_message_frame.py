"""Frames of messages, read back by another implementation of RFC 6455."""

import pytest
from websockets.frames import Opcode
from websockets.protocol import CLIENT, OPEN, Protocol

from gateway_trio.core.message_frame import message_frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 300_000])
def test_each_form_of_a_length_is_read_back(size):
    text = "x" * (size - 2) + "é" if size > 1 else "x" * size
    client = Protocol(CLIENT, state=OPEN, max_size=None)
    client.receive_data(message_frame(text) + message_frame("next"))
    first, second = client.events_received()
    assert client.parser_exc is None
    assert (first.opcode, first.fin, first.data.decode()) == (Opcode.TEXT, True, text)
    assert second.data == b"next"


def test_bytes_are_a_binary_frame():
    client = Protocol(CLIENT, state=OPEN)
    client.receive_data(message_frame(b"\xff" * 200))
    (frame,) = client.events_received()
    assert (frame.opcode, frame.data) == (Opcode.BINARY, b"\xff" * 200)


def test_the_head_is_as_short_as_it_can_be():
    assert [len(message_frame("x" * size)) - size for size in (125, 126, 65535, 65536)] == [2, 4, 4, 10]


def test_half_a_pair_is_no_text():
    with pytest.raises(UnicodeEncodeError):
        message_frame("\ud800")
