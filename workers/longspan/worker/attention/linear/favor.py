"""FAVOR+: random features whose products are exp(q k) on average.

Choromanski et al., "Rethinking Attention with Performers", 2020 (arXiv:2009.14794), lemma 1:
exp(w x - |x|^2 / 2) with normal w, drawn orthogonal to each other. The variance grows with
exp(|q|^2 + |k|^2): it is here as a map whose limit is known, not as one to serve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch


@dataclass(frozen=True, slots=True, eq=False)
class Favor:
    """Positive random features, the same for all heads.

    Attributes:
        directions: [features, d].
    """

    directions: torch.Tensor

    def query(self, x: torch.Tensor) -> torch.Tensor:
        """See ``FeatureMap``."""
        x = x.float()
        norm = x.square().sum(-1, keepdim=True) / 2
        return (x @ self.directions.T - norm).exp() / sqrt(len(self.directions))

    def key(self, x: torch.Tensor) -> torch.Tensor:
        """See ``FeatureMap``."""
        return self.query(x)

    def part(self, heads: Sequence[int], kv_heads: Sequence[int], device: torch.device) -> Favor:
        """See ``FeatureMap``."""
        return Favor(self.directions.to(device))


def favor(d: int, features: int, generator: torch.Generator) -> Favor:
    """Directions in orthogonal groups of ``d``, each as long as a normal vector is."""
    groups = []
    for first in range(0, features, d):
        basis, _ = torch.linalg.qr(torch.randn(d, d, generator=generator))
        lengths = torch.randn(d, d, generator=generator).norm(dim=1, keepdim=True)
        groups.append((basis.T * lengths)[: features - first])
    return Favor(torch.cat(groups))
