"""Linear attention in place of far keys, written out: what an approximation nobody trained loses.

A query sees the first page and the window exactly; every other key counts phi(q) . phi(k) instead
of exp(q . k) (Katharopoulos et al., "Transformers are RNNs", 2020, arXiv:2006.16236). A linear
state computes these sums in constant memory; here they are written key by key, which is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F

from longspan.worker.attention.policy import LayerPolicy
from longspan.worker.attention.pool import PAGE_TOKENS

RANDOM_FEATURES = 256
FeatureMap = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor | float]]
"""Of queries or keys [..., d], scaled by d ** -0.25: their features [..., m], none negative, and
the logarithm of a factor that was taken out of each row, [..., 1]."""


def elu(rows: torch.Tensor) -> tuple[torch.Tensor, float]:
    """elu(x) + 1 (Katharopoulos et al., 2020)."""
    return F.elu(rows) + 1, 0.0


def relu(rows: torch.Tensor) -> tuple[torch.Tensor, float]:
    """max(x, 0) (T2R, Kasai et al., 2021, arXiv:2103.13076, with the identity as its matrix)."""
    return F.relu(rows), 0.0


def exp(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """exp(x), number by number."""
    most = rows.amax(-1, keepdim=True)
    return (rows - most).exp(), most


def hedgehog(rows: torch.Tensor) -> tuple[torch.Tensor, float]:
    """softmax of x and of -x (Zhang et al., 2024, arXiv:2402.04347), the identity as its matrix."""
    return torch.cat((rows.softmax(-1), (-rows).softmax(-1)), -1), 0.0


def favor(rows: torch.Tensor, features: int = RANDOM_FEATURES) -> tuple[torch.Tensor, torch.Tensor]:
    """Positive random features, exp on average (FAVOR+, Choromanski et al., arXiv:2009.14794)."""
    random = torch.Generator().manual_seed(0)
    directions = torch.randn(features, rows.shape[-1], generator=random)
    exponents = rows @ directions.T - rows.square().sum(-1, keepdim=True) / 2
    most = exponents.amax(-1, keepdim=True)
    return (exponents - most).exp() / features**0.5, most


MAPS: Mapping[str, FeatureMap] = {
    "elu": elu,
    "relu": relu,
    "exp": exp,
    "FAVOR+": favor,
    "Hedgehog": hedgehog,
}


def attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    policy: LayerPolicy,
    far: FeatureMap | None,
    *,
    scale: float,
) -> torch.Tensor:
    """Attention of the last rows of a sequence over all of it.

    ``query`` is [heads, rows, d], ``keys`` and ``values`` [heads, n, d]; the result
    [heads, rows, d]. ``policy`` is a window's; None for ``far`` leaves the other keys out.
    """
    positions = torch.arange(keys.shape[1])
    rows = positions[-query.shape[1] :, None]
    page = positions // PAGE_TOKENS
    near = (page < policy.prefix_pages) | (page >= rows // PAGE_TOKENS - policy.window_pages)
    scores = query @ keys.mT * scale
    if far is None:
        scores = scores.masked_fill(~near, float("-inf"))
    else:
        scores = torch.where(near, scores, log_kernel(query, keys, far, scale=scale))
    return scores.masked_fill(positions > rows, float("-inf")).softmax(-1) @ values


def log_kernel(
    query: torch.Tensor, keys: torch.Tensor, feature_map: FeatureMap, *, scale: float
) -> torch.Tensor:
    """log(phi(q) . phi(k)): [heads, rows, n]."""
    ours, our_factor = feature_map(query * scale**0.5)
    theirs, their_factor = feature_map(keys * scale**0.5)
    logs: torch.Tensor = (ours @ theirs.mT).log() + our_factor
    return logs + (their_factor.mT if isinstance(their_factor, torch.Tensor) else their_factor)
