"""Where a gateway is: a URL, and the stream to it."""

from __future__ import annotations

import re
import ssl
from urllib.parse import SplitResult, urlsplit

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
    What it says shows nothing of the URL that may be a secret.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # which says what stood there
        raise ValueError(f"{_shown(url)}: this is no URL") from None
    if (fault := _fault(parts)) is not None:
        raise ValueError(f"{_shown(url)}: {fault}")
    path = parts.path if parts.path not in ("", "/") else "/acp"
    port = parts.port or _PORTS[parts.scheme]
    return Address(str(parts.hostname), port, parts.scheme == "wss", parts.netloc, path)


def _fault(parts: SplitResult) -> str | None:
    """Return what is wrong with the parts of a URL."""
    if parts.scheme not in _PORTS:
        return "the URL of a gateway starts with ws:// or wss://"
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        return "the URL of a gateway has no user, no query and no fragment; a token goes beside it"
    if not parts.hostname:
        return "the URL of a gateway names a host"
    try:
        zero = parts.port == 0
    except ValueError:  # too high, or none
        zero = True
    if zero:
        return "the port of a gateway's URL is a number from 1 to 65535"
    if (fault := host_fault(parts.netloc)) is not None:  # the `Host` header is encoded as a name is
        return f"the host of a gateway's URL {fault}"
    if not (parts.path.isascii() and parts.path.isprintable() and " " not in parts.path):
        return "the path of a gateway's URL is printable ASCII without blanks"
    return None


def _shown(url: str) -> str:
    """Return what of a URL may be shown: where it leads; and nothing where a user and a password may be in it."""
    found = re.match(r"(?P<scheme>wss?)://(?P<place>(\[[0-9A-Fa-f:.]*\]|[\w.-]*)(:[0-9]+(?![^/?#]))?)", url)
    if found is None:
        return "the URL"
    return f"{found['scheme']}://…" if "@" in url else found[0]
