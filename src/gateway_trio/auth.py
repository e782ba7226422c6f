"""Which requests may connect at all. Who is connected is said by `tokens` and `entrance`.

A web page that somebody opens must reach a gateway on their machine neither directly nor through DNS
rebinding. So `Host` is checked first: it is a loopback name, the address that the client reached, or listed in
`hosts`. Then `Origin`, which browsers always send: the same host, or an exact entry of `allowed_origins`.
"""

from __future__ import annotations

import ipaddress
import re

from gateway_trio.config import ServerConfig, is_loopback
from gateway_trio.tokens import LOCAL, Principal

__all__ = ["LOCAL", "Principal", "check_origin", "is_local", "split_host"]


_LAST_PORT = 65535


#: `Host` is a name or an IPv4 address, or an IPv6 address in brackets; then a port, which may be empty.
_HOST = re.compile(r"(?:([A-Za-z0-9._-]+)|\[([A-Fa-f0-9.]*:[A-Fa-f0-9:.]*)\])(?::([0-9]{0,5}))?")


def split_host(value: str) -> tuple[str, int | None] | None:
    """Return host and port of a `Host` header (RFC 9110 section 7.2), or None if it is none."""
    found = _HOST.fullmatch(value)
    if found is None:
        return None
    name, address, digits = found.groups()
    port = int(digits) if digits else None
    if port is not None and port > _LAST_PORT:
        return None
    return (name or address).rstrip(".").lower(), port


def check_origin(server: ServerConfig, *, reached: str, host: str, origin: str | None) -> str | None:
    """Return why this request may not come in, or None if it may.

    `reached` is the local address of the socket, `host` the `Host` header, `origin` the `Origin` header or None.
    """
    split = split_host(host)
    if split is None:
        return "the Host header is no host"
    name = split[0]
    listed = {entry.lower() for entry in server.hosts}
    if not (is_loopback(name) or _same_address(name, reached) or name in listed or host.lower() in listed):
        return f"this gateway does not answer for the host {name!r}; list it in server.hosts"
    if origin is None or origin in server.allowed_origins:
        return None
    if origin.lower().partition("://")[2] == host.lower():
        return None
    return f"the origin {origin!r} is not in server.allowed_origins"


def is_local(*, reached: str, host: str) -> bool:
    """Whether a request came over loopback: by the local address of its socket, and by its `Host` as well.

    The second as a proxy on this machine brings everybody over loopback, but with the name that they used.
    """
    split = split_host(host)
    return is_loopback(reached) and split is not None and is_loopback(split[0])


def _same_address(name: str, reached: str) -> bool:
    try:
        return _plain(name) == _plain(reached)
    except ValueError:
        return False


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return an address; one of IPv4 that came in on a socket of both families is one of IPv4."""
    found = ipaddress.ip_address(address)
    return (found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None) or found
