"""Signed tokens (JWT): checked with public keys and pinned algorithms."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jwt

from longspan.server.auth.public_keys import VerifyingKey
from longspan.server.auth.refusal import Refusal
from longspan.server.auth.verified import VerifiedTokens
from longspan.server.errors import Unauthenticated
from longspan.server.identity import Tenant, is_tenant

# Far below gRPC's own limit on metadata; a token holds a few claims.
MAX_TOKEN_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must say.

    Attributes:
        tenant_claim: where it says which tenant.
        leeway_s: how far clocks may differ.
    """

    issuer: str
    audience: str
    tenant_claim: str
    leeway_s: float


class Tokens:
    """Checks tokens with one version of the keys."""

    def __init__(self, keys: Sequence[VerifyingKey], rules: TokenRules) -> None:
        self._keys = {key.key_id: key for key in keys}
        self._only = keys[0] if len(keys) == 1 else None
        self._rules = rules
        # Belongs to these keys: with others, every token is checked anew.
        self._verified = VerifiedTokens()

    def tenant(self, token: str) -> Tenant:
        """Whom the issuer says the caller is.

        Raises:
            Unauthenticated: the token does not hold.
        """
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise Unauthenticated(Refusal.MALFORMED)
        known = self._verified.find(token, time.time())
        if known is not None:
            return known
        try:
            claims = self._claims(token)
            until_s = int(claims["exp"]) + self._rules.leeway_s
        except jwt.ExpiredSignatureError as error:
            raise Unauthenticated(Refusal.EXPIRED_TOKEN) from error
        except (jwt.InvalidIssuerError, jwt.InvalidAudienceError) as error:
            raise Unauthenticated(Refusal.FOREIGN_TOKEN) from error
        except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
            # Not all that a token can hold is foreseen by the library: deep JSON, odd numbers.
            raise Unauthenticated(Refusal.BAD_TOKEN) from error
        tenant = claims.get(self._rules.tenant_claim)
        if not (isinstance(tenant, str) and is_tenant(tenant)):
            raise Unauthenticated(Refusal.NO_TENANT)
        self._verified.keep(token, Tenant(tenant), until_s)
        return Tenant(tenant)

    def _claims(self, token: str) -> dict[str, Any]:
        rules, key = self._rules, self._key(jwt.get_unverified_header(token))
        claims: dict[str, Any] = jwt.decode(
            token,
            key.key,
            algorithms=list(key.algorithms),
            issuer=rules.issuer,
            audience=rules.audience,
            leeway=rules.leeway_s,
            options={"require": ["exp", "iss", "aud"]},
        )
        return claims

    def _key(self, header: dict[str, Any]) -> VerifyingKey:
        name = header.get("kid")
        # A key in PEM has no name, whatever its issuer calls it.
        if self._only is not None and (name is None or self._only.key_id is None):
            return self._only
        key = self._keys.get(name) if isinstance(name, str) else None
        if key is None:
            raise Unauthenticated(Refusal.UNKNOWN_KEY)
        return key
