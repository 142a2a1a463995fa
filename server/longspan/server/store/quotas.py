"""What one tenant may keep. Pure."""

from __future__ import annotations

from typing import NamedTuple

from longspan.server.errors import QuotaExceeded
from longspan.server.limits import Limits


class Usage(NamedTuple):
    """What a tenant keeps: documents, and uploads that are open.

    Attributes:
        documents: both.
        size_bytes: of documents, and what uploads have declared or taken.
    """

    documents: int
    size_bytes: int


def check_count(usage: Usage, limits: Limits) -> None:
    """Let one more document pass.

    Raises:
        QuotaExceeded: the tenant has too many.
    """
    if usage.documents >= limits.tenant_documents:
        raise QuotaExceeded("documents", usage.documents, limits.tenant_documents)


def check_bytes(usage: Usage, added_bytes: int, limits: Limits) -> None:
    """Let so many further bytes pass.

    Raises:
        QuotaExceeded: the tenant has too many.
    """
    if usage.size_bytes + added_bytes > limits.tenant_bytes:
        raise QuotaExceeded("bytes", usage.size_bytes, limits.tenant_bytes)


def room_bytes(usage: Usage, limits: Limits) -> int:
    """Bytes that the tenant may still add."""
    return max(limits.tenant_bytes - usage.size_bytes, 0)
