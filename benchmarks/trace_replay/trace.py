"""Requests of a trace, with the chain keys of their prompts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longspan.worker.kv.chain import KeySpace, PageKey, child

BLOCK_TOKENS = 512
BLOCK_PAGES = 2
TRACES = Path(__file__).resolve().parents[3] / "shared" / "data" / "traces"

# Attention over 64 blocks costs as much as all else of a block: so in decoders of 7 to 8 billion.
EQUAL_BLOCKS = 64
_SPACE = KeySpace(tenant="trace", fingerprint="", dtype="", policy="full", layout=1)


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt.

    Attributes:
        arrival_s: since the first request.
        pages: keys of its pages; a block that is not full counts as two pages all the same.
        tokens: of each block.
    """

    arrival_s: float
    pages: Sequence[PageKey]
    tokens: Sequence[int]

    @property
    def blocks(self) -> Sequence[PageKey]:
        """Key of each block: that of its last page."""
        return self.pages[BLOCK_PAGES - 1 :: BLOCK_PAGES]


def cost_of(depth: int) -> float:
    """What computing a block takes, with so many before it; the first one takes 1."""
    return 1 + depth / EQUAL_BLOCKS


def make_requests(records: Iterable[dict[str, Any]]) -> list[Request]:
    """Requests from a trace's records, in order of arrival.

    Args:
        records: ``timestamp`` in ms, ``input_length`` in tokens, and ``hash_ids``, one a block;
            equal ids are equal blocks.
    """
    known: dict[tuple[PageKey, int], Sequence[PageKey]] = {}
    ordered = sorted(records, key=lambda record: int(record["timestamp"]))
    return [_request(record, known) for record in ordered]


def path_of(name: str) -> Path:
    """Where a trace lies, on machines that have it."""
    return TRACES / f"mooncake_{name}_trace.jsonl.zst"


def load(name: str) -> list[Request]:
    """The requests of a trace. Raises OSError."""
    import zstandard

    with path_of(name).open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        return make_requests(json.loads(line) for line in stream.read().split(b"\n") if line)


def working_set(requests: Iterable[Request]) -> int:
    """Distinct blocks."""
    return len({key for request in requests for key in request.blocks})


def _request(
    record: dict[str, Any], known: dict[tuple[PageKey, int], Sequence[PageKey]]
) -> Request:
    pages: list[PageKey] = []
    parent = _SPACE.root()
    for block in record["hash_ids"]:
        # Requests share most of their keys: each is hashed once, and is one object.
        if (parent, block) not in known:
            known[parent, block] = _block_pages(parent, block)
        pages += known[parent, block]
        parent = pages[-1]
    ends = range(0, len(record["hash_ids"]) * BLOCK_TOKENS, BLOCK_TOKENS)
    tokens = [min(BLOCK_TOKENS, int(record["input_length"]) - end) for end in ends]
    return Request(record["timestamp"] / 1e3, pages, tokens)


def _block_pages(parent: PageKey, block: int) -> Sequence[PageKey]:
    keys = []
    for page in range(BLOCK_PAGES):
        parent = child(parent, block.to_bytes(8, "little") + bytes([page]))
        keys.append(parent)
    return tuple(keys)
