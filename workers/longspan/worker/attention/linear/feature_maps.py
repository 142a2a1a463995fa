"""Feature maps: what stands in linear attention for the exponential of a score.

A key's weight for a query is the product of their features, which are never negative. Queries and
keys come in multiplied by the square root of the scale, so that their own product is the score.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch


class FeatureMap(Protocol):
    """Features of queries and keys, of equal number."""

    def query(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` is [tokens, heads, d]; the result [tokens, heads, features], float32."""
        ...

    def key(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` is [tokens, kv_heads, d]; the result [tokens, kv_heads, features], float32."""
        ...

    def part(
        self, heads: Sequence[int], kv_heads: Sequence[int], device: torch.device
    ) -> FeatureMap:
        """The same for some heads alone, on this device."""
        ...


@dataclass(frozen=True, slots=True)
class Pointwise:
    """One function for every number of queries and keys."""

    function: Callable[[torch.Tensor], torch.Tensor]

    def query(self, x: torch.Tensor) -> torch.Tensor:
        """See ``FeatureMap``."""
        return self.function(x.float())

    def key(self, x: torch.Tensor) -> torch.Tensor:
        """See ``FeatureMap``."""
        return self.function(x.float())

    def part(self, heads: Sequence[int], kv_heads: Sequence[int], device: torch.device) -> Self:
        """See ``FeatureMap``."""
        return self


def exp() -> Pointwise:
    """exp(x)."""
    return Pointwise(torch.exp)


def relu() -> Pointwise:
    """max(x, 0); a query without a positive number sees nothing."""
    return Pointwise(torch.relu)


def elu() -> Pointwise:
    """elu(x) + 1 (Katharopoulos et al., "Transformers are RNNs", 2020, arXiv:2006.16236)."""
    return Pointwise(lambda x: torch.nn.functional.elu(x) + 1)
