"""The definitions of causal linear attention: every weight written out, and key by key."""

from __future__ import annotations

import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.linear.feature_maps import FeatureMap
from longspan.worker.attention.linear.state import State, look, normalised, state_of
from longspan.worker.attention.merge import joined


def attend_quadratic(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> Attended:
    """All products of features; shapes as in ``attend_chunked``, without a state before."""
    group = query.shape[1] // keys.shape[1]
    keys, values = (x.float().repeat_interleave(group, 1) for x in (keys, values))
    weights = torch.einsum("nhf,mhf->hnm", query, keys).tril()
    return normalised(torch.einsum("hnm,mhv->nhv", weights, values), weights.sum(-1).T)


def attend_recurrent(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, state: State
) -> tuple[Attended, State]:
    """One key and one query after the other, as in decode; shapes as in ``attend_chunked``."""
    parts = []
    for at in range(len(query)):
        own = slice(at, at + 1)
        state = state.plus(state_of(keys[own], values[own]))
        parts.append(look(query[own], state))
    return joined(parts), state


def attend_beyond(
    near: torch.Tensor,
    far: torch.Tensor,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    maps: FeatureMap,
    *,
    scale: float,
) -> Attended:
    """Softmax weights for near keys and products of features for far ones, under one sum.

    ``near`` and ``far`` are bool [kv_heads, n, n]; ``query`` is [n, heads, d], ``keys`` and
    ``values`` [n, kv_heads, d].
    """
    group = query.shape[1] // keys.shape[1]
    features = maps.query(query * scale**0.5), maps.key(keys * scale**0.5)
    near, far = (x.repeat_interleave(group, 0) for x in (near, far))
    keys, values, of_keys = (
        x.float().repeat_interleave(group, 1) for x in (keys, values, features[1])
    )
    exact = torch.einsum("nhd,mhd->hnm", query.float() * scale, keys).exp()
    weights = exact * near + torch.einsum("nhf,mhf->hnm", features[0], of_keys) * far
    return normalised(torch.einsum("hnm,mhv->nhv", weights, values), weights.sum(-1).T)


def empty_state(kv_heads: int, features: int, dv: int) -> State:
    """Of no keys."""
    return State(torch.zeros(kv_heads, features, dv), torch.zeros(kv_heads, features))
