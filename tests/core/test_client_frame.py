"""What a client sends can be read by a gateway, or it is refused before it is sent."""

import pytest

from gateway_trio.config import ServerConfig
from gateway_trio.core.client_frame import MOST_BYTES, client_frame
from gateway_trio.core.jsonrpc import DEPTH, Problem, Request, parse, request


def asked(value):
    return request(1, "m", {"text": value})


@pytest.mark.parametrize(
    "value", ["plain", "é€😀", 'a "quoted"\n\x00\u2028 word', "\\udcff", [1, None, {"a": 2.5}]]
)
def test_what_can_be_read_is_one_line(value):
    frame = client_frame(asked(value))
    assert parse(frame) == Request(1, "m", {"text": value})
    assert "\n" not in frame


def nested(depth):
    value = 0
    for _ in range(depth):
        value = [value]
    return value


def circle():
    value = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("bad \udcff", "UTF-8"),
        ({"\ud83d": 1}, "UTF-8"),
        (float("nan"), "NaN"),
        (nested(DEPTH + 1), "deep"),
        (nested(100_000), "deep"),
        (circle(), "no JSON"),
    ],
)
def test_what_a_gateway_could_not_read_is_refused(value, why):
    fault = client_frame(asked(value))
    assert isinstance(fault, Problem)
    assert (fault.reason, fault.retryable, fault.admitted) == ("invalid_params", False, False)
    assert why in fault.message
    assert "not sent" in fault.message


@pytest.mark.parametrize("character", ["x", "é", "€", "😀"])
def test_its_length_is_that_in_utf_8(character):
    size = len(client_frame(asked(character * 100)).encode())
    assert size == len(client_frame(asked("")).encode()) + 100 * len(character.encode())
    assert isinstance(client_frame(asked(character * 100), size), str)
    fault = client_frame(asked(character * 100), size - 1)
    assert (fault.reason, fault.admitted) == ("invalid_params", False)
    assert f"{size} bytes" in fault.message
    assert f"at most {size - 1}" in fault.message


def test_a_gateway_that_does_not_say_takes_what_the_config_has_as_its_default():
    assert ServerConfig().max_message_bytes == MOST_BYTES
    assert isinstance(client_frame(asked("x" * MOST_BYTES)), Problem)
