"""Tokens: who each of them is.

A token is known by its SHA-256, from the config or made of an environment variable's value, and compared as that,
with all there are and in constant time, so that neither the time nor the order says how near a guess came.

`Tokens` never holds a token, and nothing here repeats one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping

from attrs import field, frozen

from gateway_trio.core.kinds import Role
from gateway_trio.strict import Fault
from gateway_trio.tables import AuthConfig, ConfigError, TokenConfig

__all__ = ["LOCAL", "TOKEN_CHARS", "Identity", "Principal", "Tokens", "bearer", "token_faults"]

#: Characters of the longest token; a request head has no room for more.
TOKEN_CHARS = 4096

_TOKEN = re.compile(r"[!-~]{1,4096}")  # what a header carries as one word
_BEARER = re.compile(r"bearer +([!-~]+) *", re.IGNORECASE)  # RFC 6750 section 2.1, with any word as the token


@frozen
class Principal:
    """Who is connected. Sessions belong to the `name`."""

    name: str
    role: Role


#: Everyone, where no tokens are configured.
LOCAL = Principal("local", Role.ADMIN)


@frozen
class Identity:
    """A principal, and the digest of the token that said so; None where no tokens are configured."""

    principal: Principal
    digest: bytes | None = field(default=None, repr=False)


def bearer(header: str) -> str | None:
    """Return the token of an `Authorization` header, None if it holds none."""
    found = _BEARER.fullmatch(header)
    return None if found is None else found[1]


@frozen
class Tokens:
    """All tokens of a config, as digests. False if there are none."""

    _known: tuple[tuple[bytes, Principal], ...] = field(default=(), repr=False)

    @classmethod
    def resolve(cls, auth: AuthConfig, environ: Mapping[str, str]) -> Tokens:
        """Return the tokens of `[auth]`; those that it names by `env` are looked up in `environ`.

        Raises `ConfigError` with all faults.
        """
        if faults := tuple(token_faults(auth, environ)):
            raise ConfigError(faults)
        return cls(tuple((_digest(token, environ), Principal(token.name, token.role)) for token in auth.tokens))

    def __bool__(self) -> bool:
        return bool(self._known)

    def find(self, token: str) -> Identity | None:
        """Return whose token this is, None if it is nobody's."""
        return self._find(hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest())

    def holds(self, identity: Identity) -> bool:
        """Whether this is still who has that token, or still everyone."""
        if identity.digest is None:
            return not self
        return self._find(identity.digest) == identity

    def _find(self, digest: bytes) -> Identity | None:
        found = None
        for known, principal in self._known:  # all of them, always
            if hmac.compare_digest(known, digest):
                found = Identity(principal, known)
        return found


def token_faults(auth: AuthConfig, environ: Mapping[str, str]) -> Iterator[Fault]:
    """Yield what is wrong with the tokens, beyond what each says of itself."""
    names: dict[str, int] = {}
    digests: dict[bytes, int] = {}
    for number, token in enumerate(auth.tokens):
        path = f"auth.tokens[{number}]"
        if (first := names.setdefault(token.name, number)) != number:
            yield Fault(f"{path}.name", f"is also that of auth.tokens[{first}]")
        if token.name == LOCAL.name:
            yield Fault(f"{path}.name", f'"{LOCAL.name}" is everyone where there are no tokens; take another name')
        if token.env is not None and (wrong := _value_fault(environ.get(token.env, ""))):
            yield Fault(f"{path}.env", f"{token.env} {wrong}")
            continue
        digest = _digest(token, environ)
        if digest == hashlib.sha256(b"").digest():
            yield Fault(f"{path}.sha256", "is that of an empty text, which is no token")
        elif (first := digests.setdefault(digest, number)) != number:
            yield Fault(path, f"has the same token as auth.tokens[{first}]")


def _value_fault(value: str) -> str | None:
    """Return why the value of an environment variable is no token."""
    if not value:
        return "is not set, or is empty, in the gateway's environment"
    if not _TOKEN.fullmatch(value):
        return f"must be 1 to {TOKEN_CHARS} characters of printable ASCII with no blank and no line end in it"
    return None


def _digest(token: TokenConfig, environ: Mapping[str, str]) -> bytes:
    if token.sha256 is not None:
        return bytes.fromhex(token.sha256)
    return hashlib.sha256(environ[token.env or ""].encode()).digest()
