"""Page keys: SHA-256 chains over everything that decides what a KV page holds.

Equal keys mean equal pages, so a key is the only thing that sharing asks for. The tenant is
part of every chain's root: no page is ever found by another tenant.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import NewType

PageKey = NewType("PageKey", bytes)


def _tagged(tag: bytes, value: bytes) -> bytes:
    return tag + len(value).to_bytes(8, "little") + value


@dataclass(frozen=True, slots=True)
class KeySpace:
    """What decides a page's contents besides its tokens and those before them.

    Attributes:
        tenant: whose documents the tokens are of.
        fingerprint: of the model's weights and configuration.
        dtype: of the stored floats.
        policy: the attention policy; it decides what deeper layers see.
        layout: version of the way a page is laid out.
    """

    tenant: str
    fingerprint: str
    dtype: str
    policy: str
    layout: int

    def root(self) -> PageKey:
        """Parent of every first page; fields are tagged and carry their length."""
        fields = (
            _tagged(b"T", self.tenant.encode()),
            _tagged(b"F", self.fingerprint.encode()),
            _tagged(b"D", self.dtype.encode()),
            _tagged(b"P", self.policy.encode()),
            _tagged(b"L", str(self.layout).encode()),
        )
        return PageKey(sha256(b"longspan page chain" + b"".join(fields)).digest())


def child(parent: PageKey, tokens: bytes) -> PageKey:
    """Key of the page that follows ``parent``; its tokens are little-endian uint32."""
    return PageKey(sha256(parent + tokens).digest())
