"""What goes from one program to its successor."""

import pytest

from gateway_trio.core.handover import Handed, program, words

PLACE = Handed.place("127.0.0.1", 8765)


def test_what_is_written_is_read_by_that_process_and_no_other():
    for handed in (Handed(1, PLACE), Handed(3), Handed(2, Handed.place("::1", 0))):
        written = handed.write({"A": "b"}, 7)
        assert written["A"] == "b"
        assert Handed.read(written, 7) == handed
        assert Handed.read(written, 8) == Handed()


def test_a_unit_of_systemd_is_understood():
    environ = {"LISTEN_PID": "7", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a.socket:b.socket"}
    assert Handed.read(environ, 7) == Handed(2, None)


def test_nothing_of_an_earlier_one_is_left():
    earlier = {
        "LISTEN_PID": "7",
        "LISTEN_FDS": "2",
        "LISTEN_FDNAMES": "x:y",
        "GATEWAY_TRIO_BOUND": PLACE,
        "A": "b",
    }
    assert Handed().write(earlier, 7) == {"A": "b"}
    assert Handed(1).write(earlier, 7) == {"A": "b", "LISTEN_PID": "7", "LISTEN_FDS": "1"}


@pytest.mark.parametrize("count", ["", "x", "-1", "1.5", "²", " 1"])
def test_what_is_no_number_is_nothing(count):
    assert Handed.read({"LISTEN_PID": "7", "LISTEN_FDS": count}, 7) == Handed()


def test_our_own_are_used_where_the_config_still_wants_them_and_a_units_always():
    assert Handed(1, PLACE).fits("127.0.0.1", 8765)
    assert not Handed(1, PLACE).fits("127.0.0.1", 8766)
    assert not Handed(1, PLACE).fits("localhost", 8765)
    assert Handed(1).fits("anywhere", 1)
    assert not Handed().fits("127.0.0.1", 8765)


@pytest.mark.parametrize(
    ("original", "argv", "before"),
    [
        (["python3", "-X", "dev", "-m", "gw", "serve", "-x"], ["/a/gw/__main__.py", "serve", "-x"], ["-X", "dev", "-m", "gw"]),
        (["/v/python", "/v/bin/gw", "serve"], ["/v/bin/gw", "serve"], ["/v/bin/gw"]),
        (["python3", "gw.py"], ["gw.py"], ["gw.py"]),
    ],
)  # fmt: skip
def test_the_words_that_start_it_again(original, argv, before):
    assert words("/v/bin/python", original) == ("/v/bin/python", *original[1:])
    assert program("/v/bin/python", original, argv) == ("/v/bin/python", *before)
