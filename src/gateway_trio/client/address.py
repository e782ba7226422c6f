"""Where a gateway is: a URL, and the stream to it."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

import trio
from attrs import frozen

from gateway_trio.core.hosts import host_fault

__all__ = ["DEFAULT_URL", "Address", "parse_url"]

DEFAULT_URL = "ws://127.0.0.1:8765"

_PORTS = {"ws": 80, "wss": 443}


@frozen
class Address:
    """A gateway's endpoint. `netloc` is what the `Host` header says."""

    host: str
    port: int
    tls: bool
    netloc: str
    path: str

    async def open(self) -> trio.abc.Stream:
        """Connect. Raises OSError, also for a certificate that does not hold; cancelling closes what there is."""
        try:
            stream = await trio.open_tcp_stream(self.host, self.port)
        except UnicodeError as fault:  # which the resolver cannot write
            raise OSError(f"{self.host!r} can be no host's name: {fault}") from fault
        if not self.tls:
            return stream
        secured = trio.SSLStream(
            stream, ssl.create_default_context(), server_hostname=self.host, https_compatible=True
        )
        try:
            await secured.do_handshake()
        except trio.BrokenResourceError as fault:
            await trio.aclose_forcefully(secured)
            raise OSError(f"TLS failed: {fault.__cause__ or fault}") from fault
        except BaseException:
            await trio.aclose_forcefully(secured)
            raise
        return secured


def parse_url(url: str) -> Address:
    """Read `ws://HOST[:PORT]` or `wss://…`; the path is `/acp` where there is none (RFC 6455, section 3).

    Raises ValueError for any other, and for one with a user, a query or a fragment: a token is never in a URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise ValueError("the URL of a gateway starts with ws:// or wss://")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("the URL of a gateway has no user, no query and no fragment; a token goes beside it")
    if not parts.hostname:
        raise ValueError("the URL of a gateway names a host")
    if (fault := host_fault(parts.hostname)) is not None:
        raise ValueError(f"the host of a gateway's URL {fault}")
    port = parts.port  # raises ValueError itself
    path = parts.path if parts.path not in ("", "/") else "/acp"
    return Address(parts.hostname, port or _PORTS[parts.scheme], parts.scheme == "wss", parts.netloc, path)
