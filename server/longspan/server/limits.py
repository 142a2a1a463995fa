"""Every limit of the public API, declared once and enforced before allocation."""

from __future__ import annotations

from typing import Self

from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

MIB = 1 << 20
ENVELOPE_BYTES = 4096


class Limits(BaseModel):
    """Upper bounds; sizes in bytes, times in seconds.

    Raises:
        ValueError: a limit is not positive, or unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    chunk_bytes: PositiveInt = MIB
    # Leaves room for a chunk that is too large, so that it can be refused by name.
    message_bytes: PositiveInt = 2 * MIB + 4096
    document_bytes: PositiveInt = 64 * MIB
    question_bytes: PositiveInt = 16 * 1024
    title_bytes: PositiveInt = 512
    documents_per_request: PositiveInt = 32
    citations: PositiveInt = 20
    summary_sentences: PositiveInt = 50
    list_page: PositiveInt = 1000
    # A reader that stalls holds a few copies of one such piece.
    read_bytes: PositiveInt = MIB // 4
    # Calls served at once; the next one is refused with RetryInfo.
    requests: PositiveInt = 256
    queued_tokens: PositiveInt = 8_000_000
    # A connection that has not begun to speak HTTP/2 by then is closed, a health check whose
    # message has not come is given up.
    handshake_s: PositiveFloat = 10.0
    # A client that sends nothing for so long, or does not take its one answer, is given up; its
    # upload stays resumable.
    chunk_wait_s: PositiveFloat = 60.0
    # What one tenant keeps: documents, and uploads until they are stored or their lease ends.
    tenant_documents: PositiveInt = 100_000
    tenant_bytes: PositiveInt = 256 * 1024 * MIB
    # How fast one tenant may ask and send; not limited unless set. A minute's requests, and a
    # second's bytes, may come at once. Faster uploads are slowed down, the rest is refused.
    tenant_requests_per_minute: PositiveInt | None = None
    tenant_requests: PositiveInt | None = None
    tenant_upload_bytes_per_s: PositiveInt | None = None
    # An upload that nobody has touched for so long is removed.
    upload_lease_s: PositiveFloat = 24 * 3600.0
    # Kept free on the disk of the data directory.
    free_space_bytes: NonNegativeInt = 64 * MIB
    # Kept free on the same disk by the cache of KV pages, which everything else goes before.
    kv_free_space_bytes: NonNegativeInt = 1024 * MIB
    # Longer answers are neither shared with equal requests nor kept.
    result_record_bytes: PositiveInt = MIB
    # Indexes kept in memory, least recently used out first.
    index_memory_bytes: PositiveInt = 256 * MIB

    @model_validator(mode="after")
    def _chunks_fit_into_messages(self) -> Self:
        if self.message_bytes < self.chunk_bytes + ENVELOPE_BYTES:
            raise ValueError(
                f"message_bytes must be at least chunk_bytes + {ENVELOPE_BYTES}, "
                "or no chunk of the promised size can arrive"
            )
        return self
