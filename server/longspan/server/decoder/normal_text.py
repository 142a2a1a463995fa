"""The normal form of one document, and the way back to its bytes."""

from __future__ import annotations

import codecs
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from mmap import mmap

from longspan.server.decoder.normal_form import SAFE_CUT, normal_form, traced_normal_form
from longspan.server.text.spans import Span

BLOCK_BYTES = 16 << 10
# Where in a block a cut is looked for first.
_TAIL_CHARS = 256


class NormalText:
    """Holds the normal form and one pair of offsets a block; a block is traced when it is hit.

    Blocking: 5 MB of English take about a tenth of a second.

    Args:
        data: UTF-8.
        block_bytes: about how long a block is.
    """

    def __init__(self, data: bytes | mmap, *, block_bytes: int = BLOCK_BYTES) -> None:
        self._data = data
        # Where the blocks start, in the document and in the normal form; the last entry is the end.
        self._starts = array("q", [0])
        self._normal_starts = array("q", [0])
        normal = bytearray()
        for block in _blocks(data, block_bytes):
            normal += normal_form(block).encode()
            self._starts.append(self._starts[-1] + len(block.encode()))
            self._normal_starts.append(len(normal))
        self._normal = bytes(normal)

    def find(self, wanted: str) -> Span | None:
        """The first place whose normal form is ``wanted``, itself in normal form and not empty."""
        needle = wanted.encode()
        place = self._normal.find(needle)
        if place < 0:
            return None
        start = self._source(place).start
        end = self._source(place + len(needle) - len(wanted[-1].encode())).end
        return Span(start, end)

    def _source(self, place: int) -> Span:
        """The character of the document that the one at byte ``place`` comes from."""
        # Blocks without a normal form share their start with the next one, which is meant.
        block = bisect_right(self._normal_starts, place) - 1
        start = self._starts[block]
        text = self._data[start : self._starts[block + 1]].decode()
        _, places = traced_normal_form(text)
        index = len(self._normal[self._normal_starts[block] : place].decode())
        position = places[index]
        start += len(text[:position].encode())
        return Span(start, start + len(text[position].encode()))


def _blocks(data: bytes | mmap, block_bytes: int) -> Iterator[str]:
    """The text, cut where both sides can be normalised alone."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    # Searched and kept; the last two characters are searched again with what follows them.
    parts, before = [""], ""
    for start in range(0, len(data), block_bytes):
        fresh = before + decoder.decode(data[start : start + block_bytes])
        cut = _late_cut(fresh)
        if cut is not None:
            yield "".join([*parts, fresh[:cut]])
            parts, fresh = [], fresh[cut:]
        parts.append(fresh[:-2])
        before = fresh[-2:]
    yield "".join([*parts, before])


def _late_cut(text: str) -> int | None:
    """A safe cut near the end of ``text``, or else the last one in it."""
    match = SAFE_CUT.search(text, max(1, len(text) - _TAIL_CHARS))
    if match is None:
        for match in SAFE_CUT.finditer(text, 1):  # noqa: B007
            pass
    return None if match is None else match.start()
