"""Tenants by the certificates that callers show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from longspan.server.auth.refusal import Refusal
from longspan.server.errors import Unauthenticated
from longspan.server.identity import Tenant, is_tenant

# Names of gRPC's authentication context.
COMMON_NAME = "x509_common_name"
ALTERNATIVE_NAME = "x509_subject_alternative_name"

Peer = Mapping[str, Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class CertificateTenants:
    """Which part of a certificate says the tenant.

    Attributes:
        part: COMMON_NAME or ALTERNATIVE_NAME.
        prefix: what stands before the tenant.
    """

    part: str
    prefix: str

    def tenant(self, peer: Peer) -> Tenant:
        """The tenant that a verified certificate names.

        Raises:
            Unauthenticated: it names none, or several.
        """
        names = [name.decode("utf-8", "replace") for name in peer.get(self.part, ())]
        tenants = {name.removeprefix(self.prefix) for name in names if name.startswith(self.prefix)}
        if len(tenants) != 1:
            raise Unauthenticated(Refusal.NO_TENANT)
        [tenant] = tenants
        if not is_tenant(tenant):
            raise Unauthenticated(Refusal.NO_TENANT)
        return Tenant(tenant)
