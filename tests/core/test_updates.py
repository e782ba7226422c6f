import attrs
import pytest

from gateway_trio.core import updates
from gateway_trio.core.updates import State


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_state_on_the_way_does_not_end(state):
    assert not State("turn", "t", 1, state).ends


@pytest.mark.parametrize("state", ["completed", "cancelled", "interrupted", "failed"])
def test_an_outcome_does(state):
    assert State("exec", "x", 1, state).ends


@pytest.mark.parametrize("kind", updates.Update.__args__, ids=lambda kind: kind.__name__)
def test_an_update_does_not_change(kind):
    assert kind.__name__ in updates.__all__
    assert kind.__setattr__ is not object.__setattr__, "it is frozen"
    assert attrs.has(kind)
