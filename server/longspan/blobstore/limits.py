"""How much a store may take of its disk."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """Bounds of one folder; every process that shares it should be given the same ones.

    Attributes:
        budget_bytes: what all blob files together may take, headers included.
        floor_bytes: what stays free on the file system, whoever fills it.
        tenant_share: what part of the budget one tenant may take; 1.0 is no quota.
        block_bytes: what a file takes is a multiple of it; where blobs are small, their lengths say
            little of what they take of the disk.
    """

    budget_bytes: int
    floor_bytes: int = 0
    tenant_share: float = 1.0
    block_bytes: int = 1

    def __post_init__(self) -> None:
        sizes = self.budget_bytes >= 0 and self.floor_bytes >= 0 and self.block_bytes >= 1
        if not sizes or not 0 < self.tenant_share <= 1:
            raise ValueError(f"no store can be kept within {self}")

    def taken(self, file_bytes: int) -> int:
        """What a file of this length takes."""
        return -(-file_bytes // self.block_bytes) * self.block_bytes

    @property
    def tenant_bytes(self) -> int:
        """What the files of one tenant may take."""
        return int(self.budget_bytes * self.tenant_share)
