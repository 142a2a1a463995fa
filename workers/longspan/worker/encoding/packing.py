"""Many texts as one row of tokens, without padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

TokenIds = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Segments:
    """Where each text lies in a packed row.

    Attributes:
        lengths: tokens of each text.
        offsets: int32 [texts + 1], the first token of each text, then the row's length.
        longest: the largest length.
    """

    lengths: tuple[int, ...]
    offsets: torch.Tensor
    longest: int


@dataclass(frozen=True, slots=True)
class PackedRow:
    """Model input: ``ids`` and ``positions`` are int64 [1, tokens]; positions restart per text."""

    ids: torch.Tensor
    positions: torch.Tensor
    segments: Segments


def make_segments(lengths: Sequence[int], device: torch.device) -> Segments:
    """Segments of consecutive texts of these lengths, on ``device``."""
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    on_device = torch.from_numpy(offsets).to(device=device, dtype=torch.int32)
    return Segments(tuple(lengths), on_device, max(lengths))


def pack(texts: Sequence[TokenIds], device: torch.device) -> PackedRow:
    """Lay texts (special tokens included) end to end on ``device``."""
    ids = np.concatenate(texts).astype(np.int64)
    positions = np.concatenate([np.arange(len(text)) for text in texts])
    return PackedRow(
        torch.from_numpy(ids)[None].to(device),
        torch.from_numpy(positions)[None].to(device),
        make_segments([len(text) for text in texts], device),
    )


def tile(lengths: Sequence[int], budget_tokens: int) -> Iterator[slice]:
    """Cut consecutive texts into runs of at most ``budget_tokens``; a longer text runs alone."""
    start = tokens = 0
    for index, length in enumerate(lengths):
        if index > start and tokens + length > budget_tokens:
            yield slice(start, index)
            start, tokens = index, 0
        tokens += length
    if start < len(lengths):
        yield slice(start, len(lengths))
