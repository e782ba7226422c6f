"""The two ways to speak to the gateway, by path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from gateway_trio.connection import Connection
from gateway_trio.dialect import Dialect
from gateway_trio.dialects.acp import AcpDialect
from gateway_trio.dialects.chat import ChatDialect

__all__ = ["DIALECTS", "MakeDialect"]

#: Makes the dialect of a connection, given the request's query.
MakeDialect = Callable[[Connection, str], Dialect]

#: The dialects of the gateway, by path.
DIALECTS: Mapping[str, MakeDialect] = MappingProxyType({"/acp": AcpDialect, "/chat": ChatDialect})
