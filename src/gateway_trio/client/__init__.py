"""A client library for gateways: connect, ask, and come back. See docs/client.md.

async with connect("ws://127.0.0.1:8765", token=token) as client:
    print(await client.status())
    print((await client.exec("uptime")).output)
"""

from gateway_trio.client.address import DEFAULT_URL
from gateway_trio.client.client import Client, connect
from gateway_trio.client.errors import ClientError, Closed, Lost, Refused, Unauthorized, Unreachable
from gateway_trio.client.facts import ExecFacts, Phase

__all__ = [
    "DEFAULT_URL",
    "Client",
    "ClientError",
    "Closed",
    "ExecFacts",
    "Lost",
    "Phase",
    "Refused",
    "Unauthorized",
    "Unreachable",
    "connect",
]
