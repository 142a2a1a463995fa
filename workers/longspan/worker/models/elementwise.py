"""What a decoder layer of the Llama family does between its products. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch

from longspan.worker.attention.pool import PAGE_TOKENS

Function = Callable[[torch.Tensor], torch.Tensor]


class HeadNorms(NamedTuple):
    """Norms of queries and keys, head by head (Qwen3).

    Attributes:
        query, key: weights [d].
    """

    query: torch.Tensor
    key: torch.Tensor
    epsilon: float


class Place(Protocol):
    """See ``place``."""

    def __call__(
        self,
        qkv: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        slots: torch.Tensor,
        norms: HeadNorms | None,
    ) -> torch.Tensor:
        """The queries."""
        ...


class Elementwise(NamedTuple):
    """The two functions of a layer, plain or compiled."""

    place: Place
    gate: Function


def turned(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """[tokens, heads, d], turned by each token's position (Su et al., 2021).

    ``cos`` and ``sin`` are [tokens, 1, d]; of the sines the first half has its sign changed.
    """
    return torch.addcmul(heads * cos, heads.roll(heads.shape[-1] // 2, -1), sin)


def place(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    norms: HeadNorms | None,
) -> torch.Tensor:
    """Take the queries, [tokens, heads, d], out of ``qkv``; keys and values go into their pages.

    Args:
        qkv: [tokens, all heads * d].
        cos, sin: as for ``turned``.
        keys, values: of a layer's pages, [pages, kv_heads, PAGE_TOKENS, d]; changed in place.
        slots: int64 [tokens], page * PAGE_TOKENS + offset of each token.
        norms: of the heads; None without.
    """
    kv_heads, d = keys.shape[1], keys.shape[-1]
    states = qkv.view(len(qkv), -1, d)
    sizes = [states.shape[1] - 2 * kv_heads, kv_heads, kv_heads]
    query, key, value = torch.split(states, sizes, 1)
    if norms is not None:
        query = _normed(query, norms.query, norms.epsilon)
        key = _normed(key, norms.key, norms.epsilon)
    pages, offsets = slots // PAGE_TOKENS, slots % PAGE_TOKENS
    keys[pages, :, offsets] = turned(key, cos, sin)
    values[pages, :, offsets] = value
    return turned(query, cos, sin)


def gate_by(act: Function) -> Function:
    """The gated half of an MLP: [rows, 2 inner] -> [rows, inner]."""

    def gate(gate_up: torch.Tensor) -> torch.Tensor:
        gate, up = gate_up.chunk(2, -1)
        return act(gate).mul_(up)

    return gate


def _normed(heads: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """RMSNorm (Zhang and Sennrich, 2019) of each head, [tokens, heads, d]."""
    exact = heads.float()
    scale = torch.rsqrt(exact.square().mean(-1, keepdim=True) + epsilon)
    return (exact * scale).to(heads.dtype) * weight
