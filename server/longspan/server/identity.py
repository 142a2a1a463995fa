"""Who is calling, and the ids that things have."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import NewType

from longspan.server.errors import InvalidRequest

Tenant = NewType("Tenant", str)
DocumentId = NewType("DocumentId", str)
UploadId = NewType("UploadId", str)

DEFAULT_TENANT = Tenant("default")
TENANT_KEY = "longspan-tenant"
_OWN_NAME = re.compile(r"doc_[0-9a-f]{24}|up_[0-9a-f]{32}")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def is_tenant(name: str) -> bool:
    """True for what a tenant may be called."""
    return _TENANT.fullmatch(name) is not None


def resolve_tenant(claimed: Sequence[str | bytes], *, trusted: bool) -> Tenant:
    """The tenant of a call: the default one, or the claimed one where claims are trusted.

    Claims are trusted only behind a gateway that authenticates callers and sets the
    ``longspan-tenant`` metadata itself.

    Raises:
        InvalidRequest: the claimed name is malformed, or there are several: one of them may
            be the caller's own.
    """
    if not (claimed and trusted):
        return DEFAULT_TENANT
    if len(claimed) > 1:
        raise InvalidRequest(f"{len(claimed)} tenants are named", field=TENANT_KEY)
    [name] = claimed
    if not (isinstance(name, str) and is_tenant(name)):
        raise InvalidRequest(f"malformed tenant {name!r}", field=TENANT_KEY)
    return Tenant(name)


def document_id(tenant: Tenant, sha256: str) -> DocumentId:
    """The id of these bytes for this tenant; another tenant's id tells nothing about it."""
    digest = hashlib.sha256(f"{len(tenant)}:{tenant}:{sha256}".encode()).hexdigest()
    return DocumentId(f"doc_{digest[:24]}")


def is_own_name(name: str) -> bool:
    """True where a name is one that this server gives documents or uploads."""
    return _OWN_NAME.fullmatch(name) is not None


def tenant_folder(tenant: Tenant) -> str:
    """A folder name that no two tenants share, whatever the file system folds."""
    return hashlib.sha256(tenant.encode()).hexdigest()[:16]


def new_upload_id() -> UploadId:
    """An id that cannot be guessed."""
    return UploadId(f"up_{secrets.token_hex(16)}")
