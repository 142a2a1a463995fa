"""Causal linear attention, chunk by chunk: quadratic within a chunk, by the state before it."""

from __future__ import annotations

import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.linear.state import State, normalised, state_of
from longspan.worker.attention.merge import joined

CHUNK = 64


def attend_chunked(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    state: State,
    *,
    chunk: int = CHUNK,
) -> tuple[Attended, State]:
    """Attention over the state's keys and those at or before each query, and the state behind.

    ``query`` is [tokens, heads, features], ``keys`` [tokens, kv_heads, features], both features;
    ``values`` [tokens, kv_heads, dv].
    """
    parts = []
    for first in range(0, len(query), chunk):
        own = slice(first, first + chunk)
        parts.append(_chunk(query[own], keys[own], values[own].float(), state))
        state = state.plus(state_of(keys[own], values[own]))
    return joined(parts), state


def _chunk(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, state: State) -> Attended:
    grouped = query.view(len(query), keys.shape[1], -1, query.shape[-1])
    weights = torch.einsum("nkgf,mkf->kgnm", grouped, keys).tril()
    weighted = torch.einsum("kgnm,mkv->nkgv", weights, values)
    weighted = weighted + torch.einsum("nkgf,kfv->nkgv", grouped, state.sums)
    mass = weights.sum(-1).permute(2, 0, 1)
    mass = mass + torch.einsum("nkgf,kf->nkg", grouped, state.counts)
    return normalised(weighted.flatten(1, 2), mass.flatten(1, 2))
