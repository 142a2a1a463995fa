"""Hedgehog: a feature map that is trained to look like softmax attention.

Zhang et al., "The Hedgehog & the Porcupine", 2024 (arXiv:2402.04347): a linear layer a head, and
the softmax of what it gives, of both signs. Untrained it is nearly flat.

Those features lie between 0 and 1, so that a far key could never weigh as much as a near one whose
score is large. LoLCATs (arXiv:2410.10254) learns a factor between the two; here it is the
exponential of a linear function of the query, which each head learns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

LARGEST_EXPONENT = 40.0
"""Of the factor: its square times a million values still is a float32."""


class Hedgehog(torch.nn.Module):
    """The maps of one layer; the identity, and a factor of 1, until they are trained.

    Args:
        heads, kv_heads: of the layer.
        d: numbers of a head.

    Attributes:
        query_weight: [heads, d, d].
        key_weight: [kv_heads, d, d].
        factor_weight: [heads, d].
        factor_bias: [heads].
    """

    def __init__(self, heads: int, kv_heads: int, d: int) -> None:
        super().__init__()
        one = torch.eye(d)
        self.query_weight = torch.nn.Parameter(one.expand(heads, d, d).clone())
        self.key_weight = torch.nn.Parameter(one.expand(kv_heads, d, d).clone())
        self.factor_weight = torch.nn.Parameter(torch.zeros(heads, d))
        self.factor_bias = torch.nn.Parameter(torch.zeros(heads))

    def query(self, x: torch.Tensor) -> torch.Tensor:
        """See ``FeatureMap``; 2 d features."""
        exponent = (x.float() * self.factor_weight).sum(-1, keepdim=True)
        exponent = exponent + self.factor_bias[:, None]
        factor = exponent.clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT).exp()
        return _features(x, self.query_weight) * factor

    def key(self, x: torch.Tensor) -> torch.Tensor:
        """See ``FeatureMap``; 2 d features."""
        return _features(x, self.key_weight)

    def part(self, heads: Sequence[int], kv_heads: Sequence[int], device: torch.device) -> Hedgehog:
        """See ``FeatureMap``."""
        ours, theirs = list(heads), list(kv_heads)
        some = Hedgehog(len(ours), len(theirs), self.query_weight.shape[-1])
        some.query_weight.data = self.query_weight.data[ours].to(device)
        some.key_weight.data = self.key_weight.data[theirs].to(device)
        some.factor_weight.data = self.factor_weight.data[ours].to(device)
        some.factor_bias.data = self.factor_bias.data[ours].to(device)
        return some.requires_grad_(False)


def features(d: int) -> int:
    """Features of a head of so many numbers."""
    return 2 * d


def _features(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    seen = torch.einsum("nhd,hfd->nhf", x.float(), weight)
    return torch.cat((seen.softmax(-1), (-seen).softmax(-1)), -1)
