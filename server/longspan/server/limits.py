"""Every limit of the public API, declared once and enforced before allocation."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Upper bounds; sizes in bytes, times in seconds.

    Raises:
        ValueError: a limit is not positive.
    """

    chunk_bytes: int = MIB
    # Leaves room for a chunk that is too large to be refused by name.
    message_bytes: int = 2 * MIB + 4096
    document_bytes: int = 64 * MIB
    question_bytes: int = 16 * 1024
    title_bytes: int = 512
    documents_per_request: int = 32
    citations: int = 20
    summary_sentences: int = 50
    list_page: int = 1000
    read_bytes: int = MIB
    requests: int = 256
    queued_tokens: int = 8_000_000
    chunk_wait_s: float = 60.0
    upload_lease_s: float = 24 * 3600.0
    free_space_bytes: int = 64 * MIB

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0 and name != "free_space_bytes":
                raise ValueError(f"limits.{name} must be positive, not {value}")
