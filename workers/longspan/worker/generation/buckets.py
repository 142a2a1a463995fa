"""The shapes for which decode is captured as a CUDA graph: batch sizes, block tables. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

LEAST_BLOCKS = 128
"""Block tables that are looked at whole: 32k tokens, and from there on doubled."""


def decode_buckets(smallest: int, optimum: int, largest: int) -> tuple[int, ...]:
    """Batch sizes from ``smallest`` to ``largest``: doubling up to ``optimum``, then in even steps.

    (1, 16, 32) gives 1, 2, 4, 8, 16, 24, 32: at most half the rows are padding up to the
    optimum, and fewer than half an optimum beyond it.

    Raises:
        ValueError: not 1 <= smallest <= optimum <= largest.
    """
    if not 1 <= smallest <= optimum <= largest:
        raise ValueError(
            f"batch sizes must be 1 <= min <= opt <= max, not {smallest}, {optimum}, {largest}"
        )
    sizes = [smallest]
    while sizes[-1] < optimum:
        sizes.append(min(2 * sizes[-1], optimum))
    step = max(1, optimum // 2)
    while sizes[-1] < largest:
        sizes.append(min(sizes[-1] + step, largest))
    return tuple(sizes)


def bucket_for(buckets: Sequence[int], rows: int) -> int | None:
    """The smallest of ``buckets``, which ascend, that holds ``rows``; None where none does."""
    index = bisect_left(buckets, rows)
    return buckets[index] if index < len(buckets) else None


def block_bucket(blocks: int, most: int) -> int:
    """The length of the block tables that have room for ``blocks`` of at most ``most`` pages."""
    return min(most, max(LEAST_BLOCKS, 1 << (blocks - 1).bit_length()))
