"""No event fills the log, no line is too long, and what was left out is counted."""

import json
import math

import pytest

from gateway_trio.core import log_bounds
from gateway_trio.core.log_bounds import AUDIT_LINES, ITEMS, KEYS, LINES, QUIET_SECONDS, Floods, bounded


def take(floods, times, logger="x", event="e", principal="", *, now=0.0):
    """Return how many of so many lines are written."""
    return sum(floods.take(logger, event, principal, now) is not None for _ in range(times))


def test_so_many_at_once_and_then_evenly():
    floods = Floods()
    assert take(floods, 1000) == LINES
    assert take(floods, 1000, now=30.0) == LINES // 2
    assert take(floods, 1000, now=300.0) == LINES


def test_the_next_line_tells_how_many_were_left_out():
    floods = Floods()
    take(floods, LINES + 7)
    assert floods.take("x", "e", "", 0.1) is None
    assert floods.take("x", "e", "", 30.0) == 8
    assert floods.take("x", "e", "", 30.0) == 0
    assert floods.due(math.inf) == {}


def test_without_a_next_line_it_is_told_later():
    floods = Floods()
    take(floods, LINES + 7)
    assert floods.due(QUIET_SECONDS - 1) == {}
    assert floods.due(QUIET_SECONDS) == {"x: e": 7}
    assert floods.due(QUIET_SECONDS) == {}, "once"
    take(floods, LINES + 5, event="f", now=100.0)
    assert floods.due(math.inf) == {"x: f": 5}, "at the very end at once"


def test_events_have_nothing_to_do_with_each_other():
    floods = Floods()
    take(floods, 1000)
    for other in ({"event": "f"}, {"logger": "y"}):
        assert take(floods, 1, **other) == 1
    assert take(floods, 1, principal="ann") == 0, "but for the audit nobody is told apart"


@pytest.mark.parametrize("key", sorted(log_bounds.AUDIT))
def test_the_audit_has_more_room_and_each_principal_their_own(key):
    logger, event = key.split(": ")
    floods = Floods()
    assert take(floods, 2000, logger, event, "ann") == AUDIT_LINES
    assert take(floods, 1, logger, event, "bob") == 1
    assert take(floods, 1, "gateway_trio.entrance", event, "ann") == 1


def test_there_are_only_so_many_keys():
    floods = Floods()
    for number in range(KEYS):
        assert floods.take("foreign", f"message {number}", "", 0.0) == 0
    assert take(floods, KEYS, event="another") == LINES
    assert take(floods, KEYS, event="and another") == 0, "they are one"
    assert floods.take("foreign", "message 7", "", 0.0) == 0, "those that are known are told apart as before"
    assert floods.due(math.inf) == {"others": 2 * KEYS - LINES}


def test_a_key_is_not_long():
    floods = Floods()
    take(floods, LINES + 1, event="e" * 10_000)
    assert max(map(len, floods.due(math.inf))) <= 120


def test_what_is_short_stays_as_it_is():
    line = {"event": "e", "n": 7, "x": 1.5, "none": None, "yes": True, "list": ["a", 2], "object": {"k": ["v"]}}
    assert bounded(line) == line


def test_a_long_value_keeps_its_ends_and_says_what_is_gone():
    found = bounded({"why": "a" * 5000 + "z" * 5000})["why"]
    assert len(found) < 2100
    assert found.startswith("aaa")
    assert found.endswith("zzz")
    assert "8000 characters" in found


def test_a_traceback_may_be_longer_and_the_line_has_an_end():
    found = bounded(
        {"exception": "x" * 100_000, "a": "y" * 2000, "b": "z" * 2000, "c": "q" * 3000, "d": "r" * 3000}
    )
    assert 16_000 <= len(found["exception"]) < 16_100
    assert len(found["a"]) == 2000
    many = bounded({str(number): "x" * 2000 for number in range(100)})
    assert len(json.dumps(many)) < 30_000
    assert many["99"].startswith("[… 2000 characters")


def test_lists_and_objects_have_so_many_items_and_so_deep():
    found = bounded(
        {"list": list(range(100)), "tuple": tuple(range(100)), "object": dict.fromkeys(range(100), "v")}
    )
    assert found["list"] == found["tuple"] == [*range(ITEMS), "… 80 more"]
    assert len(found["object"]) == ITEMS + 1
    assert found["object"]["…"] == "80 more"
    deep = value = {}
    for _ in range(50):
        value["k"] = value = {}
    assert len(json.dumps(bounded({"deep": deep}))) < 2100
    assert bounded({"deep": [[[[[1]]]]]}) == {"deep": [[[["[1]"]]]]}


def test_half_a_surrogate_pair_is_replaced_also_where_a_cut_leaves_one():
    assert bounded({"why": "a\ud83d", "of": {"\ud83d": ["\ude00"]}}) == {
        "why": "a\ufffd",
        "of": {"\ufffd": ["\ufffd"]},
    }
    long = bounded({"why": "\ud83d\ude00" * 3000 + "\ud83d"})["why"]
    long.encode()
    assert "4001 characters" in long


def test_what_is_no_json_becomes_text():
    assert bounded({"error": ValueError("x"), "set": {1}}) == {"error": "ValueError('x')", "set": [1]}
