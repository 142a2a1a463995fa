"""Copies of the keys of full pages in 4 bits, to select pages by.

Keys have a few channels of large numbers (KIVI, arXiv:2402.02750), which would be all that 4 bits
hold. So they are rotated, and their mean over the page is kept apart: then a scale for each key is
as good as one for each channel, and leaves products of integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from longspan.worker.attention.hadamard import hadamard, rotated

LARGEST = 7
SCALE = torch.float16
LEAST_SCALE, LARGEST_SCALE = 2.0**-24, 65504.0
"""The smallest number above zero of that type, and the largest."""


@dataclass(frozen=True, slots=True, eq=False)
class FourBitKeys:
    """The keys of every full page of one layer: each its page's mean, and a scale times codes.

    Attributes:
        codes: int8 [kv_heads, pages, page tokens / 2, d], see ``packed``.
        scales: float16 [kv_heads, pages, page tokens].
        means: float32 [kv_heads, pages, d], of the rotated keys.
        rotation: of keys, and of the queries that they are compared with; see ``hadamard``.
    """

    codes: torch.Tensor
    scales: torch.Tensor
    means: torch.Tensor
    rotation: torch.Tensor

    def write(self, slots: torch.Tensor, keys: torch.Tensor) -> None:
        """Take whole pages: ``keys`` is [pages, kv_heads, page tokens, d], ``slots`` int64."""
        codes, scales, means = quantised_pages(rotated(keys, self.rotation))
        for kept, new in ((self.codes, packed(codes)), (self.scales, scales), (self.means, means)):
            kept.index_copy_(1, slots, new.transpose(0, 1))

    def restored(self, pages: slice | torch.Tensor) -> torch.Tensor:
        """The rotated keys of some pages, float32 [pages, kv_heads, page tokens, d]."""
        keys = scaled(*halves(self.codes[:, pages]), self.scales[:, pages, :, None])
        return keys.add_(self.means[:, pages, None]).transpose(0, 1)

    def parts(self, page: int) -> Iterator[torch.Tensor]:
        """The contiguous tensors that a page is kept in."""
        for kept in (self.codes, self.scales, self.means):
            yield from kept[:, page]


def make_four_bit_keys(
    kv_heads: int, pages: int, page_tokens: int, d: int, device: torch.device
) -> FourBitKeys:
    """Room for so many pages, uninitialised; ``d`` is a multiple of 8."""
    shape = kv_heads, pages
    return FourBitKeys(
        torch.empty(*shape, page_tokens // 2, d, dtype=torch.int8, device=device),
        torch.empty(*shape, page_tokens, dtype=SCALE, device=device),
        torch.empty(*shape, d, device=device),
        hadamard(d, device),
    )


def quantised_pages(rotated: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Whole pages of rotated keys, float32 [.., page tokens, d], which are used up.

    Returns:
        int8 codes from -7 to 7 [.., page tokens, d], float16 scales [.., page tokens], and the
        means [.., d].
    """
    means = rotated.mean(-2)
    rest = rotated.sub_(means[..., None, :])
    # The scale that is stored must be the one that divides.
    scales = (rest.abs().amax(-1) / LARGEST).clamp_(max=LARGEST_SCALE).to(SCALE)
    codes = rest.div_(scales.float().clamp_min_(LEAST_SCALE)[..., None])
    return codes.round_().clamp_(-LARGEST, LARGEST).to(torch.int8), scales, means


def packed(codes: torch.Tensor) -> torch.Tensor:
    """Codes [.., tokens, d] as bytes [.., tokens / 2, d].

    A byte is the code of a token in the first half, and 16 times that of the one as far into the
    second.
    """
    *shape, tokens, d = codes.shape
    first, second = codes.view(*shape, 2, tokens // 2, d).unbind(-3)
    return torch.add(first, second, alpha=16)


def halves(packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 bytes without their upper four bits, times 16; and whole."""
    return (packed.view(torch.uint8) * 16).view(torch.int8), packed


def scaled(first: torch.Tensor, whole: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Codes, or what any products made of them, times their scales.

    ``first`` and ``whole`` come of ``halves``, [.., tokens / 2, n]; ``scales`` are
    [.., tokens, 1]. The result is float32 [.., tokens, n].
    """
    *shape, half, width = first.shape
    codes = torch.empty(*shape, 2, half, width, device=first.device)
    codes[..., 0, :, :] = first
    # Without the first half's code 16 times the second's is left of a byte.
    codes[..., 1, :, :] = whole
    codes[..., 1, :, :].sub_(codes[..., 0, :, :], alpha=1 / 16)
    return codes.flatten(-3, -2).mul_(scales.float() / 16)
