"""What stands before the payload of a blob's file: everything the index needs to be built again.

    magic 8 | version u16 | flags u16 | header bytes u32 | key 32 | payload bytes u64 |
    created u64 (ns) | cost f64 (s) | parent 32 | depth u32 | three lengths u16 |
    tenant | subject | label | xxh3-64 of all this | xxh3-128 of all this and the payload

Numbers are little endian, texts UTF-8. The checksum of the header alone lets a scan trust it
without reading the payload.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import xxhash

from longspan.blobstore.stats import Miss

KEY_BYTES = 32
MAGIC_BYTES = 8
VERSION = 1
TEXT_BYTES = 1024  # of each of the three texts
PAYLOAD_BYTES = 1 << 30  # one system call reads it
_FIXED = struct.Struct("<8sHHI32sQQd32sIHHH")
_PREFIX = struct.Struct("<8sHHI")
_HEADER_SUM_BYTES = 8
SUM_BYTES = 16
MIN_BYTES = _FIXED.size + _HEADER_SUM_BYTES + SUM_BYTES
MAX_BYTES = MIN_BYTES + 3 * TEXT_BYTES
_HAS_PARENT = 1


class Damaged(Exception):
    """A file does not hold the blob it should hold."""

    def __init__(self, reason: Miss) -> None:
        super().__init__(reason)
        self.reason = reason
        self.inode: int | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """A blob's description.

    Attributes:
        key: 32 bytes.
        payload_bytes: length of what follows the header.
        created_ns: when it was stored, since the epoch.
        tenant, subject, label: whose it is, what it belongs to, what it is called.
        parent: key of the blob before it in its chain.
        cost_s: seconds that computing it again would take.
        depth: blobs before it in its chain.
    """

    key: bytes
    payload_bytes: int
    created_ns: int
    tenant: str
    subject: str = ""
    label: str = ""
    parent: bytes | None = None
    cost_s: float = 0.0
    depth: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for what cannot be written."""
        if len(self.key) != KEY_BYTES or len(self.parent or self.key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes")
        if not (math.isfinite(self.cost_s) and self.cost_s >= 0):
            raise ValueError(f"{self.cost_s} is not a number of seconds")
        if self.payload_bytes > PAYLOAD_BYTES:
            raise ValueError(f"a payload has at most {PAYLOAD_BYTES} bytes")
        if max(len(text) for text in self._texts()) > TEXT_BYTES:
            raise ValueError(f"tenant, subject and label have at most {TEXT_BYTES} bytes each")

    @property
    def file_bytes(self) -> int:
        """Length of header and payload."""
        return MIN_BYTES + sum(map(len, self._texts())) + self.payload_bytes

    def encode(self, magic: bytes) -> bytes:
        """All but the last checksum, which needs the payload; see ``Checksum``."""
        texts = self._texts()
        fixed = _FIXED.pack(
            magic,
            VERSION,
            0 if self.parent is None else _HAS_PARENT,
            self.file_bytes - self.payload_bytes,
            self.key,
            self.payload_bytes,
            self.created_ns,
            self.cost_s,
            self.parent or bytes(KEY_BYTES),
            self.depth,
            *map(len, texts),
        )
        head = fixed + b"".join(texts)
        return head + xxhash.xxh3_64_digest(head)

    def _texts(self) -> list[bytes]:
        return [text.encode() for text in (self.tenant, self.subject, self.label)]


def header_bytes(start: bytes, magic: bytes) -> int:
    """The length that a file's first ``MIN_BYTES`` give its header.

    Raises:
        Damaged: these bytes begin no file of this kind and version.
    """
    if len(start) < MIN_BYTES:
        raise Damaged(Miss.LENGTH)
    found, version, flags, length = _PREFIX.unpack_from(start)
    if found != magic:
        raise Damaged(Miss.MAGIC)
    if version != VERSION or flags & ~_HAS_PARENT:
        raise Damaged(Miss.VERSION)
    if not MIN_BYTES <= length <= MAX_BYTES:
        raise Damaged(Miss.LENGTH)
    return int(length)


def decode(data: bytes, magic: bytes) -> Header:
    """A header from exactly its bytes, last checksum included.

    Raises:
        Damaged: they are no header of this kind and version.
    """
    if header_bytes(data, magic) != len(data):
        raise Damaged(Miss.LENGTH)
    head = data[: -SUM_BYTES - _HEADER_SUM_BYTES]
    if xxhash.xxh3_64_digest(head) != data[len(head) : -SUM_BYTES]:
        raise Damaged(Miss.HEADER)
    _, _, flags, _, key, payload_bytes, created_ns, cost_s, parent, depth, *lengths = (
        _FIXED.unpack_from(head)
    )
    texts, position = [], _FIXED.size
    for length in lengths:
        texts.append(head[position : position + length])
        position += length
    try:
        tenant, subject, label = (text.decode() for text in texts)
        return Header(
            key=key,
            payload_bytes=payload_bytes,
            created_ns=created_ns,
            tenant=tenant,
            subject=subject,
            label=label,
            parent=parent if flags & _HAS_PARENT else None,
            cost_s=cost_s,
            depth=depth,
        )
    except ValueError:  # a header with a good checksum that we would not have written
        raise Damaged(Miss.HEADER) from None
