"""Which gateway a program talks to, and with which token: what was typed, its config, the environment."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

from gateway_trio.client.address import DEFAULT_URL
from gateway_trio.config import ConfigError, Fault, load_server

__all__ = ["TOKEN_NAME", "URL_NAME", "find_target"]

URL_NAME = "GATEWAY_TRIO_URL"
TOKEN_NAME = "GATEWAY_TRIO_TOKEN"  # noqa: S105 - the name of a variable


def find_target(url: str | None, config: Path | None, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the URL and the token to connect with; the token is None where there is none.

    Args:
        url: what was typed; None if nothing was.
        config: the gateway's config file, whose host and port are taken; None for none. What was typed wins.
        environ: has the rest, under `GATEWAY_TRIO_URL` and `GATEWAY_TRIO_TOKEN`.

    Raises ConfigError for a config that says no address to connect to; what else stands in it does not matter.

    """
    token = environ.get(TOKEN_NAME) or None
    if url is None and config is not None:
        server = load_server(config)
        if server.port == 0:
            raise ConfigError((Fault("server.port", "0 leaves the port to the system: give the URL"),))
        url = f"ws://{_reachable(server.host)}:{server.port}"
    return url or environ.get(URL_NAME) or DEFAULT_URL, token


def _reachable(host: str) -> str:
    """Return where one connects to what listens on this host: an unspecified address is reached on loopback."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"  # noqa: PLR2004 - the Internet Protocol's
    return host if address.version == 4 else f"[{host}]"  # noqa: PLR2004
