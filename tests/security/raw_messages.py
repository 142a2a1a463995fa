"""Parts of messages as the wire has them, where no library would write them."""

from __future__ import annotations

from typing import Any


def varint(number: int) -> bytes:
    """A number."""
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def member(message: Any, name: str, content: bytes) -> bytes:
    """A field of bytes, text or a message."""
    number = message.DESCRIPTOR.fields_by_name[name].number
    return varint(number << 3 | 2) + varint(len(content)) + content
