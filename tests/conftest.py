"""No test touches the state directory of whoever runs it, nor goes by what their shell does with signals."""

import os
import signal

import pytest


@pytest.fixture(scope="session", autouse=True)
def _state_home(tmp_path_factory):
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    yield
    if before is None:
        del os.environ["XDG_STATE_HOME"]
    else:
        os.environ["XDG_STATE_HOME"] = before


@pytest.fixture(scope="session", autouse=True)
def _signals():
    """Let programs get SIGINT: a shell that runs the tests in the background has it ignored, for children too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
