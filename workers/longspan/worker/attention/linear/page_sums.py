"""The states of single pages, one slot a page: they add up to that of any set of pages."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from longspan.worker.attention.linear.feature_maps import FeatureMap


@dataclass(frozen=True, slots=True, eq=False)
class PageSums:
    """What linear attention needs of each page of one layer.

    Attributes:
        maps: the layer's.
        sums: float32 [kv_heads, slots, features, dv + 1]; the last column is the features' own
            sum, so that one product gives numerator and denominator.
        scale: of the layer's scores.
    """

    maps: FeatureMap
    sums: torch.Tensor
    scale: float

    def write(self, slots: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Add up whole pages; shapes as in ``Centroids.write``."""
        pages, kv_heads, tokens, d = keys.shape
        rows = keys.transpose(1, 2).reshape(pages * tokens, kv_heads, d)
        features = self.maps.key(rows * self.scale**0.5).view(pages, tokens, kv_heads, -1)
        counted = torch.nn.functional.pad(values.float(), (0, 1), value=1.0)
        self.sums[:, slots] = torch.einsum("ptkf,pktv->kpfv", features, counted)


def make_page_sums(
    maps: FeatureMap, keys: torch.Tensor, values: torch.Tensor, *, scale: float
) -> PageSums:
    """Room for the states of a pool's pages.

    ``keys`` is [pages, kv_heads, page tokens, d], ``values`` [.., dv].
    """
    pages, kv_heads, _, d = keys.shape
    features = maps.key(keys.new_zeros(1, kv_heads, d)).shape[-1]
    shape = (kv_heads, pages, features, values.shape[-1] + 1)
    return PageSums(maps, torch.empty(shape, device=keys.device), scale)
