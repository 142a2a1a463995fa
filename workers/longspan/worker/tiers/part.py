"""A page's part of one group of layers, as the tiers below the pool know it."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from longspan.worker.kv.chain import PageKey


@dataclass(frozen=True, slots=True)
class Part:
    """What is stored and loaded at once.

    Attributes:
        key: of the page.
        group: of layers.
    """

    key: PageKey
    group: int

    def name(self, layout: bytes) -> bytes:
        """What tells it from all other parts, 32 bytes.

        Args:
            layout: what tells the way that a worker lays out pages from other ways.
        """
        return sha256(b"longspan page part" + layout + self.key + bytes((self.group,))).digest()
