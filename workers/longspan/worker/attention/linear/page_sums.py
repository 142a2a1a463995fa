"""The linear state behind each page of a sequence, one slot a page.

A slot holds the sum over all keys from the sequence's first to the page's last. The state of any
pages between is a difference of two, so that what a query looks at does not grow with the document;
a page that is shared is shared with all before it, so its sum is every sequence's that has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longspan.worker.attention.linear.feature_maps import FeatureMap

BYTES = torch.float32.itemsize


@dataclass(frozen=True, slots=True, eq=False)
class PageSums:
    """What linear attention needs of the pages of one layer.

    Attributes:
        maps: the layer's.
        sums: float32 [kv_heads, slots, features, dv + 1]; the last column is the features' own
            sum, so that one product gives numerator and denominator.
        scale: of the layer's scores.
    """

    maps: FeatureMap
    sums: torch.Tensor
    scale: float

    def write(
        self, slots: torch.Tensor, before: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> None:
        """Add whole pages to what lies before them.

        ``slots`` is int64 [pages], a sequence's in their order; ``before`` int64 [pages], the slot
        of the page before each, -1 where a sequence begins. ``keys`` and ``values`` are
        [pages, kv_heads, page tokens, d] and [.., dv].
        """
        own = self._own(keys, values)
        # One by one and in order, so that no way of cutting a sequence rounds otherwise.
        for at in range(len(slots)):
            place, earlier = slots[at : at + 1], before[at : at + 1]
            known = self.sums[:, earlier.clamp_min(0)]
            # Chosen, not multiplied: a slot that nobody wrote may hold NaN.
            known = torch.where(earlier.view(1, 1, 1, 1) < 0, 0.0, known)
            self.sums[:, place] = known + own[:, at : at + 1]

    def _own(self, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Each page's own state: [kv_heads, pages, features, dv + 1]."""
        pages, kv_heads, tokens, d = keys.shape
        rows = keys.transpose(1, 2).reshape(pages * tokens, kv_heads, d)
        features = self.maps.key(rows.float() * self.scale**0.5).view(pages, tokens, kv_heads, -1)
        counted = torch.nn.functional.pad(values.float(), (0, 1), value=1.0)
        return torch.einsum("ptkf,pktv->kpfv", features, counted)

    def between(self, before: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """The states of pages behind ``before`` up to ``last``, slots of one sequence.

        Both are int64 [kv_heads or 1, ..]; the result [kv_heads, .., features, dv + 1].
        """
        heads = torch.arange(len(self.sums), device=self.sums.device)
        heads = heads.view(-1, *(1 for _ in before.shape[1:]))
        return self.sums[heads, last] - self.sums[heads, before]


def page_bytes(kv_heads: int, features: int, dv: int) -> int:
    """Of one page of one layer."""
    return kv_heads * features * (dv + 1) * BYTES


def empty_sums(
    pages: int, kv_heads: int, features: int, dv: int, device: torch.device
) -> torch.Tensor:
    """Room for the states of so many pages, uninitialised; see ``PageSums.sums``."""
    return torch.empty(kv_heads, pages, features, dv + 1, device=device)


def make_page_sums(
    maps: FeatureMap, keys: torch.Tensor, values: torch.Tensor, *, scale: float
) -> PageSums:
    """Room for the states of a pool's pages.

    ``keys`` is [pages, kv_heads, page tokens, d], ``values`` [.., dv].
    """
    pages, kv_heads, _, d = keys.shape
    features = maps.key(keys.new_zeros(1, kv_heads, d)).shape[-1]
    sums = empty_sums(pages, kv_heads, features, values.shape[-1], keys.device)
    return PageSums(maps, sums, scale)
