"""What the chat keeps between two runs, and which gateway it talks to."""

import stat

import pytest

from gateway_trio.chat.state import History, Sessions, state_directory
from gateway_trio.client.target import find_target
from gateway_trio.config import ConfigError


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_directory_is_where_the_specification_says(tmp_path):
    named = state_directory({"XDG_STATE_HOME": str(tmp_path / "state"), "HOME": "/nowhere"})
    assert named == tmp_path / "state" / "gateway-trio"
    assert mode(named) == 0o700
    for odd in ("", "relative/path"):
        assert (
            state_directory({"XDG_STATE_HOME": odd, "HOME": str(tmp_path)})
            == tmp_path / ".local/state/gateway-trio"
        )


def test_what_was_typed_is_for_its_owner_alone(tmp_path):
    (tmp_path / "history").write_text("+hello\n")
    (tmp_path / "history").chmod(0o644)
    history = History(tmp_path)
    assert mode(history.path) == 0o600
    assert history.path.read_text() == "+hello\n"


def test_what_was_typed_is_bounded(tmp_path):
    line = "+" + "x" * 98 + "\n"
    (tmp_path / "history").write_text(line * 20_000)
    kept = History(tmp_path).path.read_text()
    assert 900_000 < len(kept) < 1_100_000
    assert kept == line * (len(kept) // 100)


def test_sessions_are_remembered_by_gateway_and_name(tmp_path):
    sessions = Sessions(tmp_path)
    assert sessions.find("ws://a", "main") is None
    sessions.remember("ws://a", "main", "s1")
    sessions.remember("ws://b", "main", "s2")
    sessions.remember("ws://a", "main", "s3")
    again = Sessions(tmp_path)
    assert [again.find(f"ws://{host}", "main") for host in "ab"] == ["s3", "s2"]
    assert mode(tmp_path / "sessions.json") == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["sessions.json"]


def test_the_oldest_sessions_are_forgotten(tmp_path):
    sessions = Sessions(tmp_path)
    for number in range(250):
        sessions.remember("ws://a", f"n{number}", f"s{number}")
    again = Sessions(tmp_path)
    assert (again.find("ws://a", "n0"), again.find("ws://a", "n249")) == (None, "s249")


def test_without_a_directory_a_name_holds_for_this_run():
    sessions = Sessions(None)
    sessions.remember("ws://a", "main", "s1")
    assert sessions.find("ws://a", "main") == "s1"
    assert Sessions(None).find("ws://a", "main") is None


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"a": '])
def test_a_file_that_is_broken_is_no_reason_to_stop(tmp_path, text):
    (tmp_path / "sessions.json").write_text(text)
    sessions = Sessions(tmp_path)
    assert sessions.find("ws://a", "main") is None
    sessions.remember("ws://a", "main", "s1")


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "ws://127.0.0.1:99"),
        ("0.0.0.0", "ws://127.0.0.1:99"),
        ("::", "ws://[::1]:99"),
        ("::1", "ws://[::1]:99"),
        ("localhost", "ws://localhost:99"),
    ],
)
def test_the_gateways_config_says_where_it_is(tmp_path, host, url):
    config = tmp_path / "gateway.toml"
    config.write_text(f'[server]\nhost = "{host}"\nport = 99\n')
    config.chmod(0o600)
    environ = {"GATEWAY_TRIO_URL": "ws://elsewhere", "GATEWAY_TRIO_TOKEN": "t"}
    assert find_target(None, config, environ) == (url, "t")
    assert find_target("ws://typed", config, environ) == ("ws://typed", "t")


def test_without_a_config_the_environment_says_it(tmp_path):
    assert find_target(None, None, {"GATEWAY_TRIO_URL": "ws://elsewhere"}) == ("ws://elsewhere", None)
    assert find_target(None, None, {"GATEWAY_TRIO_TOKEN": ""}) == ("ws://127.0.0.1:8765", None)
    with pytest.raises(ConfigError):
        find_target(None, tmp_path / "nothing.toml", {})


def test_the_names_of_a_gateways_sessions(tmp_path):
    sessions = Sessions(tmp_path)
    sessions.remember("ws://a", "main", "s1")
    sessions.remember("ws://a", "two words", "s2")
    sessions.remember("ws://ab", "main", "s3")
    assert sessions.names("ws://a") == {"s1": "main", "s2": "two words"}
    assert sessions.names("ws://b") == {}
