import math

import pytest
from attrs import frozen

from gateway_trio.core.fields import ItemsError, count, number, seconds, text, texts


@frozen
class Table:
    wait: float = seconds(2)
    many: int = count(3, least=1, most=9)
    rate: float = number(5, least=0.5, most=8)
    names: tuple[str, ...] = texts(lambda name: None if name else "is empty")


def test_defaults_are_those_given():
    assert Table() == Table(2, 3, 5, ())


@pytest.mark.parametrize("value", [1, 0.001, 1e9, 600])
def test_seconds_take_finite_numbers_above_zero(value):
    assert Table(wait=value).wait == value


@pytest.mark.parametrize("value", [0, -1, -0.5, math.inf, math.nan, True, "30s", "30", None, 10**400, 2e9])
def test_seconds_refuse_all_else(value):
    with pytest.raises(ValueError, match="finite number of seconds above 0"):
        Table(wait=value)


@pytest.mark.parametrize("value", [1, 9])
def test_counts_include_their_bounds(value):
    assert Table(many=value).many == value


@pytest.mark.parametrize("value", [0, 10, 3.0, True, "3", None])
def test_counts_refuse_all_else(value):
    with pytest.raises(ValueError, match="whole number from 1 to 9"):
        Table(many=value)


@pytest.mark.parametrize("value", [0.4, 9, math.nan, True, "1"])
def test_numbers_are_in_their_range(value):
    assert Table(rate=0.5).rate == 0.5
    with pytest.raises(ValueError, match=r"from 0\.5 to 8"):
        Table(rate=value)


def test_texts_name_every_wrong_item():
    assert Table(names=("a", "b")).names == ("a", "b")
    with pytest.raises(ItemsError) as caught:
        Table(names=("", "a", ""))
    assert caught.value.messages == {0: "is empty", 2: "is empty"}
    assert str(caught.value) == "[0] is empty; [2] is empty"


@frozen(kw_only=True)
class Named:
    name: str = text(lambda name: None if name else "is empty")
    other: str | None = text(lambda name: None if name else "is empty", default=None)


def test_a_text_without_a_default_is_required():
    assert Named(name="a") == Named(name="a", other=None)
    with pytest.raises(TypeError, match="name"):
        Named()


@pytest.mark.parametrize("key", ["name", "other"])
def test_a_text_is_checked(key):
    with pytest.raises(ValueError, match="is empty"):
        Named(**{"name": "a", key: ""})
    assert getattr(Named(**{"name": "a", key: "b"}), key) == "b"
