import pytest

from gateway_trio.core.glance import glance, span


def rows(status, now=1000.0):
    return list(glance(status, now=now, when=lambda at: f"<{at:g}>"))


def test_an_open_gateway():
    status = {
        "phase": "open", "reasons": [], "asked": {}, "remainingMs": None, "turns": 2, "execs": 0, "running": [],
        "breaker": {"state": "closed", "nextProbeMs": None}, "connections": 3, "sessions": 4, "abandoned": [],
        "started": 100.0,
    }  # fmt: skip
    assert rows(status) == [
        ("phase", "open"),
        ("turns", "2"),
        ("execs", "0"),
        ("breaker", "closed"),
        ("connections", "3"),
        ("sessions", "4"),
        ("started", "<100>, 15 min 0 s ago"),
    ]


def test_a_drain_says_who_when_and_why_and_what_runs():
    status = {
        "phase": "draining", "reasons": ["backend", "operator"], "remainingMs": 12_400, "turns": 1, "execs": 1,
        "asked": {"operator": {"by": "ann", "at": 990.0, "why": "a look"}, "backend": {"by": "breaker", "at": 1.0, "why": ""}},
        "running": [{"id": "x1", "name": "df", "state": "running", "by": "bob", "at": 993.0}, {"id": "x2", "name": "df", "state": "queued", "by": "bob"}],
        "breaker": {"state": "open", "nextProbeMs": 4000}, "connections": 1, "sessions": 1, "abandoned": ["t1", "t2"],
    }  # fmt: skip
    assert rows(status) == [
        ("phase", "draining, at most 12 s left"),
        ("reason backend", "asked for by breaker at <1>, 16 min 39 s ago"),
        ("reason operator", "asked for by ann at <990>, 10 s ago: a look"),
        ("turns", "1"),
        ("execs", "1"),
        ("  x1", "df, running for 7 s, by bob"),
        ("  x2", "df, queued, by bob"),
        ("breaker", "open, the next probe in 4 s"),
        ("connections", "1"),
        ("sessions", "1"),
        ("abandoned", "t1, t2"),
    ]


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"asked": 3, "reasons": ["operator", 7], "running": [None, {}], "breaker": [], "started": "x"},
        {"reasons": "operator", "running": 1, "remainingMs": "soon", "asked": {"operator": 1}, "abandoned": 0},
    ],
)
def test_whatever_it_holds_there_are_rows(status):
    assert rows(status)[0][0] == "phase"


def test_what_somebody_wrote_does_nothing_to_a_terminal():
    why = "\x1b]0;title\x07\x1b[2Jred\x1b[31m\r\n\x9b1mnext" + "x" * 1000
    status = {"reasons": ["operator"], "asked": {"operator": {"by": "a\x1b[Hnn", "at": 1.0, "why": why}}}
    said = dict(rows(status))["reason operator"]
    assert said.startswith("asked for by a[Hnn at <1>, 16 min 39 s ago: ]0;title[2Jred[31m 1mnextxxx")
    assert len(said) < 600
    assert said.isprintable()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1, "0 s"), (0, "0 s"), (59.9, "59 s"), (60, "1 min 0 s"), (3600, "1 h 0 min"), (90061, "1 d 1 h"),
        (86400 * 12, "12 d 0 h"),
    ],
)  # fmt: skip
def test_a_span_has_two_units(seconds, said):
    assert span(seconds) == said
