"""The paragraph around a place in a document. Pure."""

from __future__ import annotations

import re
from mmap import mmap

from longspan.server.text.spans import Span

REACH_BYTES = 2048
_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")
# In UTF-8 the bytes of a character after its first.
_CONTINUATION = range(0x80, 0xC0)


def paragraph(content: bytes | mmap, span: Span) -> Span:
    """From the blank line before ``span`` to the one behind it, at most ``REACH_BYTES`` each way.

    The ends are never within a character.
    """
    first = max(0, span.start - REACH_BYTES)
    before = content[first : span.start]
    start = max((found.end() for found in _BLANK_LINE.finditer(before)), default=0) + first
    after = content[span.end : span.end + REACH_BYTES]
    found = _BLANK_LINE.search(after)
    end = span.end + (found.start() if found else len(after))
    while start < span.start and content[start] in _CONTINUATION:
        start += 1
    while span.end < end < len(content) and content[end] in _CONTINUATION:
        end -= 1
    return Span(start, end)
