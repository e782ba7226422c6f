"""The paths that are answered with a page, and who may have which."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import trio

from gateway_trio.core.jsonrpc import problem
from gateway_trio.http import Answer, Status, livez, public, readyz, unwelcome

if TYPE_CHECKING:
    from gateway_trio.collector import Scrapes
    from gateway_trio.gateway import Gateway

__all__ = ["Pages"]


class Pages:
    """The pages of one gateway, by path."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._pages: Mapping[str, Callable[[bool, bool], Awaitable[Answer]]] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
        }
        self._limiter = trio.CapacityLimiter(1)
        self._scrapes: Scrapes | None = None

    def __contains__(self, path: str) -> bool:
        return path in self._pages

    async def answer(self, path: str, *, known: bool, local: bool) -> Answer:
        """Return the answer to a request for a page that there is.

        `known` says whether we know who asks, `local` whether they came over loopback. Cancelling leaves nothing
        behind.
        """
        return await self._pages[path](known, local)

    async def _livez(self, known: bool, _: bool) -> Answer:
        return livez(self._status(known))

    async def _readyz(self, known: bool, _: bool) -> Answer:
        return readyz(self._status(known))

    def _status(self, known: bool) -> Status:
        return self._gateway.status() if known else public(self._gateway.status())

    async def _metrics(self, known: bool, local: bool) -> Answer:
        """Prometheus text; off loopback only for whoever has a token.

        What makes it is imported for the first one who asks, in a thread, as that takes a while; a limiter of its
        own lets no agent that is busy with threads delay it.
        """
        if not (known or local):
            return unwelcome(problem("auth_required", "send a token: Authorization: Bearer …"))
        if self._scrapes is None:
            made = await trio.to_thread.run_sync(_collector, abandon_on_cancel=True, limiter=self._limiter)
            self._scrapes = self._scrapes or made(self._gateway)
        return Answer(200, self._scrapes.text(), self._scrapes.content_type)


def _collector() -> type[Scrapes]:
    from gateway_trio.collector import Scrapes  # noqa: PLC0415 - see `_metrics`

    return Scrapes
