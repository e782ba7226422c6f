"""Buckets that fill again: how many at once, how many in a time, and how many keys."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_trio.core.rates import KEYS, Rates


def test_as_many_at_once_as_the_limit_says_and_then_one_at_a_time():
    rates = Rates(3, 60)
    assert [rates.take("a", 0) for _ in range(3)] == [0, 0, 0]
    assert rates.take("a", 0) == pytest.approx(20)
    assert rates.take("a", 15) == pytest.approx(5)
    assert rates.take("a", 20) == 0
    assert rates.take("a", 20) == pytest.approx(20)


def test_each_key_has_its_own():
    rates = Rates(1, 60)
    assert rates.take("a", 0) == rates.take("b", 0) == 0
    assert rates.take("a", 0) > 0


def test_a_refusal_costs_nothing():
    rates = Rates(1, 60)
    rates.take("a", 0)
    assert [rates.take("a", 30) for _ in range(100)] == [pytest.approx(30)] * 100
    assert rates.take("a", 60) == 0


def test_a_key_with_a_full_bucket_is_forgotten():
    rates = Rates(2, 60)
    for n in range(100):
        rates.take(f"k{n}", 0)
    assert len(rates) == 100
    rates.take("new", 31)
    assert len(rates) == 1


def test_no_more_keys_than_the_table_holds_and_the_newest_stay():
    rates = Rates(1, 1e9)
    for n in range(KEYS + 10):
        rates.take(f"k{n}", n)
    assert len(rates) == KEYS
    assert rates.take(f"k{KEYS + 9}", KEYS + 10) > 0
    assert rates.take("k0", KEYS + 10) == 0


def test_another_limit_holds_at_once():
    rates = Rates(1, 60)
    rates.take("a", 0)
    rates.limit = 2
    assert rates.take("a", 0) == 0
    assert rates.take("a", 0) > 0


@given(st.lists(st.floats(0, 50), max_size=60), st.integers(1, 5), st.floats(1, 60))
def test_in_no_stretch_of_time_more_than_the_bucket_and_what_came_back(gaps, limit, seconds):
    rates, now, taken = Rates(limit, seconds), 0.0, []
    for gap in gaps:
        now += gap
        wait = rates.take("a", now)
        if not wait:
            taken.append(now)
        else:
            assert rates.take("a", now + wait * 1.001 + 1e-6) == 0  # as long as it was told
            taken.append(now + wait * 1.001 + 1e-6)
            now += wait * 1.001 + 1e-6
    for first, start in enumerate(taken):
        for last, end in enumerate(taken[first:], first):
            assert last - first + 1 <= limit + (end - start) * limit / seconds + 1e-3
