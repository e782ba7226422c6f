import pytest

from gateway_trio.core.retries import FIRST_SECONDS, MOST_SECONDS, next_try


def wait(failures, *, most=99, asked=None, left=1e6, chance=1.0):
    return next_try(failures, most=most, asked=asked, left=left, chance=chance)


def test_the_wait_doubles_up_to_a_limit():
    assert [wait(n) for n in range(1, 7)] == [0.5, 1, 2, 4, 8, 8]
    assert wait(5000, most=9999) == MOST_SECONDS


def test_chance_takes_away_up_to_half():
    assert wait(1, chance=0.0) == FIRST_SECONDS / 2
    assert wait(1, chance=0.5) == FIRST_SECONDS * 0.75


@pytest.mark.parametrize(("failures", "most", "again"), [(1, 0, False), (1, 1, True), (2, 1, False), (2, 2, True)])
def test_there_are_as_many_tries_as_allowed(failures, most, again):
    assert (wait(failures, most=most) is not None) is again


def test_what_the_other_side_asked_for_comes_first():
    assert wait(1, asked=2.0) == 2.5
    assert wait(1, asked=2.0, chance=0.0) == 2.25
    assert wait(1, asked=0.0) == 0.5


def test_a_wait_that_ends_too_late_is_not_begun():
    assert wait(1, asked=2.0, left=2.5) is None
    assert wait(1, asked=2.0, left=2.51) == 2.5
