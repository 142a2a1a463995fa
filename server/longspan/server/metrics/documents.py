"""Documents on their way up, and those that are kept."""

from __future__ import annotations

from longspan.server.metrics.families import Families


class DocumentMetrics:
    """Counted where bytes are kept; the sums are sampled."""

    def __init__(self, families: Families) -> None:
        self.uploaded = families.counter(
            "longspan_upload_bytes_total", "Bytes of documents that were received and kept."
        )
        self.open = families.gauge("longspan_uploads_open", "Streams that are sending a document.")
        self._documents = families.gauge("longspan_documents", "Documents of all tenants.")
        self._bytes = families.gauge("longspan_document_bytes", "Their bytes.")

    def sample(self, count: int, size_bytes: int) -> None:
        """What is kept now."""
        self._documents.set(count)
        self._bytes.set(size_bytes)
