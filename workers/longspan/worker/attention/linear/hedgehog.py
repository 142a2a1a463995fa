"""Hedgehog: a feature map that is trained to look like softmax attention.

Zhang et al., "The Hedgehog & the Porcupine", 2024 (arXiv:2402.04347): a linear layer a head, and
the softmax of what it gives, of both signs. Untrained it is nearly flat.
"""

from __future__ import annotations

import torch


class Hedgehog(torch.nn.Module):
    """The maps of one layer; identity until they are trained.

    Args:
        heads, kv_heads: of the layer.
        d: numbers of a head.

    Attributes:
        query_weight: [heads, d, d].
        key_weight: [kv_heads, d, d].
    """

    def __init__(self, heads: int, kv_heads: int, d: int) -> None:
        super().__init__()
        one = torch.eye(d)
        self.query_weight = torch.nn.Parameter(one.expand(heads, d, d).clone())
        self.key_weight = torch.nn.Parameter(one.expand(kv_heads, d, d).clone())

    def query(self, x: torch.Tensor) -> torch.Tensor:
        """See ``FeatureMap``; 2 d features."""
        return _features(x, self.query_weight)

    def key(self, x: torch.Tensor) -> torch.Tensor:
        """See ``FeatureMap``; 2 d features."""
        return _features(x, self.key_weight)


def _features(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    seen = torch.einsum("nhd,hfd->nhf", x.float(), weight.float())
    return torch.cat((seen.softmax(-1), (-seen).softmax(-1)), -1)
