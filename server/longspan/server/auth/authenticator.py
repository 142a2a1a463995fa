"""Who is calling: the one place where a call becomes a tenant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from longspan.server.auth.api_keys import ApiKeys, looks_like_key
from longspan.server.auth.certificates import CertificateTenants, Peer
from longspan.server.auth.refusal import Refusal
from longspan.server.auth.tokens import Tokens
from longspan.server.errors import Unauthenticated
from longspan.server.identity import TENANT_KEY, Tenant, resolve_tenant
from longspan.server.reloaded import Reloaded

AUTHORIZATION = "authorization"
SCHEME = "bearer"

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Authenticator:
    """Finds a call's tenant; without any of the three ways every caller is let in.

    Attributes:
        keys, tokens: the credentials that callers send; None where they are not used.
        certificates: the tenants of certificates, likewise.
        trust_metadata: take the tenant that a gateway has set; only without the others.
    """

    keys: Reloaded[ApiKeys] | None = None
    tokens: Reloaded[Tokens] | None = None
    certificates: CertificateTenants | None = None
    trust_metadata: bool = False

    @property
    def required(self) -> bool:
        """True where every caller must be somebody."""
        return not (self.keys is None and self.tokens is None and self.certificates is None)

    def sent(self, metadata: Metadata) -> Tenant | None:
        """The tenant of the credential in the metadata; None where the certificate decides.

        Raises:
            Unauthenticated: there must be one and there is none, or it does not hold.
        """
        credential = _bearer(metadata)
        if credential is not None:
            return self._tenant(credential)
        if self.certificates is None:
            raise Unauthenticated(Refusal.MISSING)
        return None

    def tenant(self, metadata: Metadata, peer: Peer) -> Tenant:
        """The tenant of a call.

        Args:
            peer: what is known of the connection, verified by TLS.

        Raises:
            Unauthenticated: nobody may be served.
            InvalidRequest: a gateway named a malformed tenant, or did not take away another.
        """
        if not self.required:
            return resolve_tenant(_values(metadata, TENANT_KEY), trusted=self.trust_metadata)
        sent = self.sent(metadata)
        if sent is not None:
            return sent
        if self.certificates is None:
            raise Unauthenticated(Refusal.MISSING)
        return self.certificates.tenant(peer)

    def _tenant(self, credential: str) -> Tenant:
        if self.keys is not None and looks_like_key(credential):
            return self.keys.value().tenant(credential)
        if self.tokens is not None:
            return self.tokens.value().tenant(credential)
        raise Unauthenticated(Refusal.MALFORMED)


def _values(metadata: Metadata, wanted: str) -> list[str | bytes]:
    return [value for name, value in metadata if name == wanted]


def _bearer(metadata: Metadata) -> str | None:
    values = _values(metadata, AUTHORIZATION)
    if not values:
        return None
    # Two could be read as the one or the other, here and at a gateway.
    if len(values) > 1 or not isinstance(values[0], str):
        raise Unauthenticated(Refusal.MALFORMED)
    scheme, _, credential = values[0].partition(" ")
    if scheme.lower() != SCHEME or not credential.isascii():
        raise Unauthenticated(Refusal.MALFORMED)
    return credential.strip()
