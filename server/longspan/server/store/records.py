"""The rows of the catalog."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

from longspan.server.identity import DocumentId, Tenant, UploadId


class Place(NamedTuple):
    """A place in the list of documents; stays one when the document there is deleted."""

    created_s: float
    document_id: DocumentId

    @classmethod
    def of_token(cls, token: str) -> Self:
        """Read what ``token`` wrote.

        Raises:
            ValueError: it is something else.
        """
        created, _, document_id = token.partition("_")
        try:
            created_s = float.fromhex(created)
        except OverflowError as error:
            raise ValueError("no time is so late") from error
        if not math.isfinite(created_s):
            raise ValueError("not a time")
        return cls(created_s, DocumentId(document_id))

    def token(self) -> str:
        """The place as callers carry it; exact."""
        return f"{self.created_s.hex()}_{self.document_id}"


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

    @property
    def place(self) -> Place:
        """Where it stands in the list."""
        return Place(self.created_s, self.document_id)


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """An upload that can be resumed; ``document_id`` is set once it is stored.

    ``reserved_bytes`` is what it counts for in its tenant's quota until then.
    """

    upload_id: UploadId
    tenant: Tenant
    title: str
    media_type: str
    declared_bytes: int | None
    touched_s: float
    document_id: DocumentId | None
    reserved_bytes: int = 0
