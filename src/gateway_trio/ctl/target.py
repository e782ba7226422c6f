"""Where the gateway is that an operator means."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

from gateway_trio.client import DEFAULT_URL
from gateway_trio.config import ConfigError, Fault, load_server

__all__ = ["find_url"]


def find_url(url: str | None, config: Path | None, environ: Mapping[str, str]) -> str:
    """Return the URL of the gateway.

    Args:
        url: of the option, which wins; None if it was not given.
        config: the gateway's config, of which host and port are taken; None if it was not given.
        environ: may have `GATEWAY_TRIO_URL`, which comes next; else it is the default host and port.

    Raises `ConfigError` for a config that says no address that can be connected to.

    """
    if url is not None:
        return url
    if config is None:
        return environ.get("GATEWAY_TRIO_URL") or DEFAULT_URL
    server = load_server(config)
    if server.port == 0:
        raise ConfigError((Fault("server.port", "0 leaves the port to the system: say it with --url"),))
    return f"ws://{_connectable(server.host)}:{server.port}"


def _connectable(host: str) -> str:
    """Return the host as part of a URL; the loopback address for one that stands for all addresses."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4:  # noqa: PLR2004 - the other is 6
        return "127.0.0.1" if address.is_unspecified else host
    return "[::1]" if address.is_unspecified else f"[{host}]"
