"""Whose page it is. No part of its key."""

from __future__ import annotations

from dataclasses import dataclass

from longspan.worker.kv.chain import PageKey


@dataclass(frozen=True, slots=True)
class Label:
    """What those who look after pages know of one.

    Attributes:
        tenant: whose.
        subject: the document or upload that it was computed for.
        depth: pages before it.
        parent: the key of the one before it.
    """

    tenant: str = ""
    subject: str = ""
    depth: int = 0
    parent: PageKey | None = None

    def belongs(self, tenant: str, subject: str) -> bool:
        """True where it is a tenant's and of one of its subjects; empty names mean all."""
        return tenant in ("", self.tenant) and subject in ("", self.subject)
