import pytest

from gateway_trio.core.hosts import host_fault


@pytest.mark.parametrize(
    "host",
    ["localhost", "a.b.example", "example.", "127.0.0.1", "::1", "fe80::1%eth0", "münchen.example", "x" * 63],
)
def test_a_name_or_an_address_is_good(host):
    assert host_fault(host) is None


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("", "without scheme"),
        ("a b", "without scheme"),
        ("http://host", "without scheme"),
        ("a..b", "1 to 63"),
        (".", "1 to 63"),
        ("x" * 300, "1 to 63"),
        ("é" * 300, "1 to 63"),
        ("\udcff", "characters"),
    ],
)
def test_what_no_name_can_be_is_named(host, why):
    assert why in host_fault(host)
