"""The rows of the catalog."""

from __future__ import annotations

from dataclasses import dataclass

from longspan.server.identity import DocumentId, Tenant, UploadId


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A complete, verified document."""

    document_id: DocumentId
    tenant: Tenant
    title: str
    media_type: str
    size_bytes: int
    size_chars: int
    sha256: str
    # Both 0 until the document has been indexed.
    tokens: int
    passages: int
    created_s: float


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """An upload that can be resumed; ``document_id`` is set once it is stored."""

    upload_id: UploadId
    tenant: Tenant
    title: str
    media_type: str
    declared_bytes: int | None
    touched_s: float
    document_id: DocumentId | None
