"""Which requests may come in: case 38 and its kind. A web page must reach a gateway neither directly nor by
DNS rebinding, and a proxy or a page that the operator listed must.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway_trio.auth import LOCAL, Principal, check_origin, is_local, split_host
from gateway_trio.config import ServerConfig
from gateway_trio.core.commands import Role

calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

LISTED = ServerConfig(
    hosts=("gateway.example", "other.example:8443"),
    allowed_origins=("https://page.example", "http://localhost:3000"),
)


def check(host, origin=None, *, reached="127.0.0.1", server=LISTED):
    return check_origin(server, reached=reached, host=host, origin=origin)


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("localhost", ("localhost", None)),
        ("LocalHost:8765", ("localhost", 8765)),
        ("localhost.", ("localhost", None)),
        ("localhost:", ("localhost", None)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]", ("::1", None)),
        ("[::1]:8765", ("::1", 8765)),
        ("[::FFFF:127.0.0.1]:80", ("::ffff:127.0.0.1", 80)),
        ("a-b_c.example", ("a-b_c.example", None)),
    ],
)
def test_a_host_is_taken_apart(value, parts):
    assert split_host(value) == parts


@pytest.mark.parametrize(
    "value",
    [
        "", ":80", "localhost:x", "localhost:99999", "localhost:-1", "localhost:+80", "localhost:8_0", "localhost: 80",
        "user@localhost", "user:pass@localhost", "@localhost", "localhost/", "localhost?x", "localhost#x", "localhost/acp",
        "//localhost", "http://localhost", "[::1", "::1]", "[]", "[::1]evil.example", "evil.example[::1]", "[::1]:80:80",
        "local\thost", "localhost evil.example", " localhost ", "localhost,evil.example", "localhost\\evil.example",
        "loc\u0430lhost", "[127.0.0.1]", "localhost:80:80",
    ],
)  # fmt: skip
def test_what_is_no_host_is_refused(value):
    assert split_host(value) is None
    assert check(value) == "the Host header is no host"


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:8765", "LOCALHOST:9", "localhost.:8765", "127.0.0.1", "127.0.0.1:8765", "127.8.9.1", "[::1]",
        "[::1]:8765", "[::ffff:127.0.0.1]:8765", "[0:0:0:0:0:0:0:1]",
        "gateway.example", "gateway.example:1", "Gateway.Example:443", "gateway.example.", "other.example:8443",
    ],
)  # fmt: skip
def test_loopback_names_and_listed_hosts_are_answered(host):
    assert check(host) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8765", "127.0.0.1.evil.example", "127.0.0.1.evil.example:8765", "localhost.evil.example",
        "evil-localhost", "xlocalhost", "localhost.localdomain", "sub.localhost", "1.0.0.127.in-addr.arpa",
        "gateway.example.evil.example", "evilgateway.example", "other.example", "other.example:8444",
        "0.0.0.0", "0.0.0.0:8765", "[::]", "0", "127.1", "0x7f.0.0.1", "2130706433", "017700000001",
        "10.0.0.1", "192.168.1.5:8765", "[fe80::1]", "[::ffff:10.0.0.1]", "169.254.169.254",
        "xn--a-ecp.ru",
    ],
)  # fmt: skip
@pytest.mark.parametrize("origin", [None, "same", "https://page.example"])
def test_any_other_host_is_refused_whatever_its_origin_says(host, origin):
    """DNS rebinding: the page's own name leads here, so that host and origin agree."""
    why = check(host, f"http://{host}" if origin == "same" else origin)
    assert why is not None
    assert "server.hosts" in why


@pytest.mark.parametrize(
    ("reached", "host", "lets_in"),
    [
        ("192.168.1.5", "192.168.1.5:8765", True),
        ("192.168.1.5", "192.168.1.6:8765", False),
        ("fd00::5", "[fd00::5]:8765", True),
        ("fd00::5", "[fd00:0:0:0::5]", True),
        ("fd00::5", "[fd00::6]", False),
        ("::ffff:192.168.1.5", "192.168.1.5:8765", True),
        ("127.0.0.1", "192.168.1.5", False),
        ("not an address", "192.168.1.5", False),
    ],
)
def test_the_address_that_was_reached_is_answered(reached, host, lets_in):
    assert (check(host, reached=reached) is None) == lets_in


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8765", None),
        ("localhost:8765", "http://localhost:8765"),
        ("localhost:8765", "https://localhost:8765"),
        ("LocalHost:8765", "http://localhost:8765"),
        ("127.0.0.1:8765", "http://127.0.0.1:8765"),
        ("[::1]:8765", "http://[::1]:8765"),
        ("gateway.example", "https://gateway.example"),
        ("localhost:8765", "https://page.example"),
        ("gateway.example", "https://page.example"),
        ("localhost:8765", "http://localhost:3000"),
    ],
)
def test_the_same_host_and_listed_origins_come_in(host, origin):
    assert check(host, origin) is None


@pytest.mark.parametrize(
    "origin",
    [
        "null", "", "https://evil.example", "https://localhost.evil.example", "http://127.0.0.1.evil.example:8765",
        "https://evil.example:8765", "http://localhost:8765.evil.example", "http://evil.example/localhost:8765",
        "http://evil.example?localhost:8765", "http://evil.example#localhost:8765",
        "http://user@localhost:8765", "http://localhost:8765@evil.example", "http://localhost", "http://localhost:80",
        "http://localhost:87650", "http://127.0.0.1:8765", "http://[::1]:8765", "localhost:8765", "//localhost:8765",
        "https://page.example.evil.example", "https://page.example:444", "http://page.example", "https://page.example/",
        "HTTPS://PAGE.EXAMPLE", "https://xpage.example", "http://localhost:3001",
        "http://[::1", "http://[", "://", "http://", "file://", "http://evil.example https://page.example",
        "https://page.example, https://evil.example",
    ],
)  # fmt: skip
def test_any_other_origin_is_refused(origin):
    why = check("localhost:8765", origin)
    assert why is not None
    assert "server.allowed_origins" in why


def test_nothing_is_listed_by_default():
    plain = ServerConfig()
    assert check("localhost:8765", server=plain) is None
    assert check("gateway.example", server=plain) is not None
    assert check("localhost:8765", "https://page.example", server=plain) is not None


@calm
@given(
    st.text(max_size=30), st.none() | st.text(max_size=30) | st.text(alphabet="htp:/[]@localhost1.", max_size=30)
)
def test_whatever_the_headers_hold_there_is_an_answer(host, origin):
    found = check(host, origin)
    assert found is None or isinstance(found, str)


def test_without_tokens_everybody_on_loopback_is_admin():
    assert LOCAL.role is Role.ADMIN
    assert Principal("local", Role.ADMIN) == LOCAL


@pytest.mark.parametrize(
    ("reached", "host", "local"),
    [
        ("127.0.0.1", "127.0.0.1:8765", True),
        ("127.0.0.1", "LocalHost", True),
        ("::1", "[::1]:8765", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("192.0.2.1", "127.0.0.1", False),
        ("127.0.0.1", "192.0.2.1", False),
        ("127.0.0.1", "gateway.example", False),
        ("127.0.0.1", "localhost.example", False),
        ("127.0.0.1", "no host", False),
        ("", "localhost", False),
    ],
)
def test_what_came_over_loopback(reached, host, local):
    assert is_local(reached=reached, host=host) is local
