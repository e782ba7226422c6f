"""Who may come in, and how much each may have: the limits before and after authentication.

Bad tokens are counted by the address that they come from. Beyond the limit they are refused at once, as
`rate_limited`; a valid token is looked for first, and so enters whatever its address did. Where no tokens are
configured everyone is `LOCAL`, and nothing here limits anyone.
"""

from __future__ import annotations

import ipaddress
import math
from collections import Counter
from collections.abc import Mapping

import trio

from gateway_trio.core.jsonrpc import Problem, problem
from gateway_trio.core.rates import Rates
from gateway_trio.log import get_logger
from gateway_trio.registry import MAX_SESSIONS
from gateway_trio.tables import AuthConfig
from gateway_trio.tokens import LOCAL, Identity, Principal, Tokens

__all__ = ["Entrance", "neighbourhood"]

log = get_logger("entrance")

_IPV6_PREFIX = 64  # bits; whoever has one address of such a net has all of them


def neighbourhood(address: str) -> str:
    """Return what an address is counted by: itself, or for IPv6 the net that one customer has."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))


class Entrance:
    """The tokens of a gateway and what was spent. `auth` is the config's, `environ` has what it names.

    Raises `ConfigError` for tokens that cannot be used.
    """

    def __init__(self, auth: AuthConfig, environ: Mapping[str, str]) -> None:
        self.tokens = Tokens.resolve(auth, environ)
        self.waiting = 0  #: connections that have not authenticated
        self._auth = auth
        self._attached: Counter[str] = Counter()
        self._failed = Rates(auth.failures, auth.failure_window_seconds)
        self._prompts = Rates(auth.prompts_per_minute, 60)

    def change(self, auth: AuthConfig, tokens: Tokens) -> None:
        """Take another config; what was spent counts on."""
        self.tokens, self._auth = tokens, auth
        self._failed.limit, self._failed.seconds = auth.failures, auth.failure_window_seconds
        self._prompts.limit = auth.prompts_per_minute

    @property
    def sessions_each(self) -> int:
        """How many sessions a principal may have."""
        return self._auth.max_sessions if self.tokens else MAX_SESSIONS

    def anyone(self) -> Identity | None:
        """Return who comes without a token; None where one is needed."""
        return None if self.tokens else Identity(LOCAL)

    def check(self, token: str | None, address: str) -> Identity | Problem:
        """Return who brings this token.

        Args:
            token: what came in its place; None for something that cannot be one.
            address: the remote address.

        Returns the problem `auth_required` for a token that is nobody's, `rate_limited` if too many of those came
        from this address, or if whoever it is has all the connections that one may have.

        """
        found = None if not token else self.tokens.find(token)
        if found is None:
            return self.refuse(address)
        if self._attached[found.principal.name] >= self._auth.max_connections:
            log.info("refused", why="too many connections", principal=found.principal.name)
            why = f"{found.principal.name} may have {self._auth.max_connections} connections at once, and has them"
            return problem("rate_limited", why, retry_after_ms=5000)
        return found

    def refuse(self, address: str) -> Problem:
        """Count a bad token and return its refusal."""
        wait = self._failed.take(neighbourhood(address), trio.current_time())
        if wait:
            log.debug("refused", why="too many bad tokens", address=address)
            return problem(
                "rate_limited", "too many bad tokens came from this address", retry_after_ms=math.ceil(wait * 1000)
            )
        log.info("refused", why="bad token", address=address)
        return problem("auth_required", "this token is not known here")

    def full(self) -> bool:
        """Whether there is no room for another connection that has not authenticated."""
        return self.waiting >= self._auth.max_unauthenticated

    def arrive(self, identity: Identity | None) -> None:
        """Count a connection: as its principal's, or for None among those that have not authenticated."""
        if identity is None:
            self.waiting += 1
        else:
            self._attached[identity.principal.name] += 1

    def leave(self, identity: Identity | None) -> None:
        """Count it no more."""
        if identity is None:
            self.waiting -= 1
        else:
            self._attached[identity.principal.name] -= 1
            self._attached += Counter()  # forgets those that have none

    def spend_prompt(self, principal: Principal) -> Problem | None:
        """Count a prompt for the agent; return the refusal of one too many."""
        wait = self._prompts.take(principal.name, trio.current_time()) if self.tokens else 0
        if not wait:
            return None
        why = (
            f"You sent {self._auth.prompts_per_minute} prompts in a minute, which is all you may; nothing was sent"
            " to the agent. Quick commands and control commands work now."
        )
        return problem("rate_limited", why, retry_after_ms=math.ceil(wait * 1000), admitted=False)
