"""Case 68: two gateways on one store, or one port: exactly one runs, and the other says why."""

import contextlib

import pytest
from restarts import end, on_disk

from harness import Program


def start(folder, name, config):
    """Start one with a folder of its own; it may become one that runs or one that does not."""
    (folder / name).mkdir(exist_ok=True)
    return Program(folder / name, config, ready=False)


def outcome(program):
    """Return None of one that opened, else its exit code."""
    with contextlib.suppress(AssertionError):  # it ended without that
        program.wait_log('"event": "open"')
        return None
    return program.wait()


def only_one(*programs):
    """Assert that exactly one runs; return it and the others."""
    found = {program: outcome(program) for program in programs}
    (runs,) = [program for program, code in found.items() if code is None]
    others = [program for program in programs if program is not runs]
    assert [found[program] for program in others] == [78] * len(others)
    for program in others:
        assert "Traceback" not in program.text
    return runs, others


def test_case_68_started_at_once_on_one_store(tmp_path):
    config = on_disk(tmp_path)
    with contextlib.ExitStack() as stack:
        programs = [stack.enter_context(start(tmp_path, str(n), config)) for n in range(4)]
        runs, others = only_one(*programs)
        for other in others:
            assert (
                f"the store {tmp_path}/gateway.db is in use by another gateway: pid {runs.pid} on " in other.text
            )
        end(runs, "killed")
        # While that one is gone two others come at once, and find what it had.
        programs = [stack.enter_context(start(tmp_path, str(n), config)) for n in range(2)]
        runs, _ = only_one(*programs)
        end(runs, "shut down")


@pytest.mark.parametrize("how", ["killed", "shut down"])
def test_case_68_whoever_comes_next_has_what_the_other_one_took(how, tmp_path):
    config = on_disk(tmp_path)
    with contextlib.ExitStack() as stack:
        (tmp_path / "first").mkdir()
        first = stack.enter_context(Program(tmp_path / "first", config))
        with first.chat("mine") as chat:
            assert chat.ask("hello") == "hello"
            refused = stack.enter_context(start(tmp_path, "second", config))
            assert refused.wait() == 78
            assert chat.ask("still here") == "still here", "the one that runs does not notice"
        end(first, how)
        (tmp_path / "third").mkdir()
        third = stack.enter_context(Program(tmp_path / "third", config))
        with third.chat("mine") as chat:
            assert "still here" in chat.ask("/history")


def test_case_68_by_another_name_it_is_the_same_store(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "first").mkdir()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Program(tmp_path / "first", on_disk(tmp_path / "real")))
        second = stack.enter_context(start(tmp_path, "second", on_disk(tmp_path / "link")))
        assert second.wait() == 78
        assert f"in use by another gateway: pid {first.pid} on " in second.text


def test_case_68_one_port(tmp_path):
    """The one that cannot listen has run nothing of what waits in its own store, and leaves it as it was."""
    (tmp_path / "first").mkdir()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Program(tmp_path / "first", on_disk(tmp_path / "first")))
        config = on_disk(tmp_path / "second", f"[server]\nport = {first.port}\n")
        second = stack.enter_context(start(tmp_path, "second", config))
        assert second.wait() == 78
        assert f"gateway-trio does not start: cannot listen on 127.0.0.1 port {first.port}: " in second.text
        assert "Traceback" not in second.text
        with first.chat() as chat:
            assert chat.ask("hello") == "hello"
        end(first, "shut down")
        third = stack.enter_context(Program(tmp_path / "second", config))
        assert third.port == first.port
