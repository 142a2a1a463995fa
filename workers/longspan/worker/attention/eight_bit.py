"""KV pages in 8 bits: integers, and a scale for each token and kv head.

Keys have a few channels of large numbers and values have none; a scale for each token bounds the
error of both at 1/254 of the token's largest number (KIVI, arXiv:2402.02750, has keys scaled by
channel instead, which needs only 2 bits but many tokens at once).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longspan.worker.attention.pool import LayerPages, Slots

LARGEST = 127
SCALE = torch.float16
LEAST_SCALE = 2.0**-24
"""The smallest number above zero of that type."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EightBitPages(LayerPages):
    """The KV pages of one layer. Latents are never stored so: all heads depend on them.

    Nothing is kept to select pages by, nor in their place: no policy beside these asks for it.

    Attributes:
        keys: int8 [pages, kv_heads, PAGE_TOKENS, d].
        values: int8 [pages, kv_heads, PAGE_TOKENS, dv].
        key_scales, value_scales: float16 [pages, kv_heads, PAGE_TOKENS].
        dtype: of what is read.
    """

    key_scales: torch.Tensor
    value_scales: torch.Tensor
    dtype: torch.dtype

    def write(self, slots: Slots, keys: torch.Tensor, values: torch.Tensor) -> None:
        """See ``LayerPages.write``."""
        stored = ((self.keys, self.key_scales, keys), (self.values, self.value_scales, values))
        for pages, scales, new in stored:
            if slots.fresh is not None:
                pages[slots.fresh] = 0
                scales[slots.fresh] = 0
            numbers, scale = quantised(new.transpose(0, 1))
            pages[slots.pages, :, slots.offsets] = numbers
            scales[slots.pages, :, slots.offsets] = scale

    def restore(self, pages: torch.Tensor) -> LayerPages:
        """Some of the pages as the kernels read them; page i is what was page ``pages[i]``."""
        keys = restored(self.keys[pages], self.key_scales[pages])
        values = restored(self.values[pages], self.value_scales[pages])
        return LayerPages(keys.to(self.dtype), values.to(self.dtype))


def quantised(numbers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers [.., d] as int8 [.., d] and their scales, float16 [..]."""
    exact = numbers.float()
    # The scale that is stored must be the one that divides.
    scales = (exact.abs().amax(-1) / LARGEST).to(SCALE)
    divisor = scales.float().clamp_min(LEAST_SCALE)[..., None]
    integers = (exact / divisor).round_().clamp_(-LARGEST, LARGEST)
    return integers.to(torch.int8), scales


def restored(integers: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The numbers, float32; at most half a scale away from what they were."""
    return integers.float() * scales.float()[..., None]
