"""What linear attention keeps of the keys it has seen."""

from __future__ import annotations

from typing import NamedTuple

import torch

from longspan.worker.attention.base import Attended


class State(NamedTuple):
    """Sums over keys; states of disjoint keys add up to that of all.

    Attributes:
        sums: float32 [kv_heads, features, dv], of each key's features times its value.
        counts: float32 [kv_heads, features], of the features alone.
    """

    sums: torch.Tensor
    counts: torch.Tensor

    def plus(self, other: State) -> State:
        """The state of both."""
        return State(self.sums + other.sums, self.counts + other.counts)


def state_of(features: torch.Tensor, values: torch.Tensor) -> State:
    """Of keys: ``features`` [tokens, kv_heads, features], ``values`` [tokens, kv_heads, dv]."""
    return State(torch.einsum("nkf,nkv->kfv", features, values.float()), features.sum(0))


def look(features: torch.Tensor, state: State) -> Attended:
    """Attention of queries [tokens, heads, features] over a state.

    The log-sum-exp is the logarithm of the denominator: the mass of the keys, by these features.
    """
    kv_heads = len(state.counts)
    grouped = features.unflatten(1, (kv_heads, -1))  # type: ignore[no-untyped-call]
    weighted = torch.einsum("nkgf,kfv->nkgv", grouped, state.sums).flatten(1, 2)
    mass = torch.einsum("nkgf,kf->nkg", grouped, state.counts).flatten(1, 2)
    return normalised(weighted, mass)


def normalised(weighted: torch.Tensor, mass: torch.Tensor) -> Attended:
    """From sums [.., dv] and masses [..]; without mass there is no key, and lse is -inf."""
    return Attended(weighted / mass.clamp_min(torch.finfo(mass.dtype).tiny)[..., None], mass.log())
