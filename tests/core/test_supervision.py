"""What a supervisor is told, walked through whole drains."""

import pytest

from gateway_trio.core import lifecycle
from gateway_trio.core.phases import Asked, Reason, State
from gateway_trio.core.supervision import Told, is_supervised, news, watchdog_seconds


class Walk:
    """A gateway's state, and what its supervisor hears of each step."""

    def __init__(self, *, in_place=False):
        self.in_place = in_place
        self.now = 100.0
        self.turns = self.execs = 0
        self.told = Told()
        self.state = State()
        self.take(lifecycle.Opened())

    def take(self, event):
        self.state, _ = lifecycle.step(self.state, event)

    def hear(self):
        self.told, text = news(
            self.told, self.state, in_place=self.in_place, turns=self.turns, execs=self.execs, now=self.now,
            beyond=5.0, clock=123_456,
        )  # fmt: skip
        return text.splitlines()

    def step(self, event):
        self.take(event)
        return self.hear()

    def drain(self, reason):
        return self.step(lifecycle.Drain(reason, Asked("me", 0.0), self.now, 20.0, 60.0))


def test_a_shutdown():
    walk = Walk()
    assert walk.hear() == ["READY=1", "STATUS=Open"]
    assert walk.hear() == [], "nothing is told twice"
    walk.turns, walk.execs = 2, 1
    assert walk.drain(Reason.SHUTDOWN) == [
        "STOPPING=1",
        "EXTEND_TIMEOUT_USEC=65000000",
        "STATUS=Draining (shutdown): no new prompts; 2 turns to end, at most 20 s",
    ]
    walk.now, walk.turns = 120.0, 1
    assert walk.step(lifecycle.TurnsDone()) == ["STATUS=Draining (shutdown): recording 1 cancelled turn"]
    assert walk.step(lifecycle.TurnsRecorded(145.0)) == ["STATUS=Draining (shutdown): 1 exec to end, at most 25 s"]
    assert walk.step(lifecycle.ExecsDone()) == ["STATUS=Closing (shutdown)"]
    assert walk.step(lifecycle.SocketsClosed()) == []


def test_a_restart_says_that_it_stops_when_it_cannot_be_taken_back():
    walk = Walk()
    walk.hear()
    assert walk.drain(Reason.RESTART) == [
        "STATUS=Draining (restart): no new prompts; 0 turns to end, at most 20 s"
    ]
    walk.now = 110.0
    assert walk.step(lifecycle.TurnsDone()) == [
        "STOPPING=1",
        "EXTEND_TIMEOUT_USEC=55000000",
        "STATUS=Draining (restart): recording 0 cancelled turns",
    ]


def test_one_in_place_never_stops_unless_a_shutdown_joins_it():
    walk = Walk(in_place=True)
    walk.hear()
    walk.drain(Reason.RESTART)
    assert walk.step(lifecycle.TurnsDone())[:3] == [
        "RELOADING=1", "MONOTONIC_USEC=123456", "EXTEND_TIMEOUT_USEC=65000000",
    ]  # fmt: skip
    assert walk.step(lifecycle.TurnsRecorded(145.0)) == ["STATUS=Draining (restart): 0 execs to end, at most 45 s"]
    assert walk.drain(Reason.SHUTDOWN) == [
        "STOPPING=1",
        "EXTEND_TIMEOUT_USEC=65000000",
        "STATUS=Draining (restart, shutdown): 0 execs to end, at most 45 s",
    ]


@pytest.mark.parametrize("in_place", [True, False])
def test_a_drain_that_is_taken_back(in_place):
    walk = Walk(in_place=in_place)
    walk.hear()
    walk.turns = 1
    assert walk.drain(Reason.OPERATOR) == [
        "STATUS=Draining (operator): no new prompts until that is taken back; 1 turn to end"
    ]
    assert walk.drain(Reason.RESTART) == [
        "STATUS=Draining (operator, restart): no new prompts; 1 turn to end, at most 20 s"
    ]
    assert walk.step(lifecycle.Undrain(Reason.OPERATOR)) == ["STATUS=Open"]


def test_what_is_over_is_over():
    walk = Walk()
    walk.take(lifecycle.Drain(Reason.SHUTDOWN, Asked("me", 0.0), walk.now, 0.0, 60.0))
    walk.now = 170.0
    assert walk.hear() == [
        "STOPPING=1",
        "EXTEND_TIMEOUT_USEC=5000000",
        "STATUS=Draining (shutdown): no new prompts; 0 turns to end, at most 0 s",
    ]


@pytest.mark.parametrize(
    ("environ", "is_one"),
    [
        ({}, False),
        ({"SYSTEMD_EXEC_PID": "7"}, True),
        ({"SYSTEMD_EXEC_PID": "8", "INVOCATION_ID": "x"}, False),  # a shell in a terminal that systemd started
        ({"NOTIFY_SOCKET": "@x"}, True),
        ({"NOTIFY_SOCKET": ""}, False),
    ],
)
def test_who_is_supervised(environ, is_one):
    assert is_supervised(environ, 7) is is_one


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "500000"}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "7"}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
    ],
)
def test_how_often_it_wants_a_sign_of_life(environ, seconds):
    assert watchdog_seconds(environ, 7) == seconds
