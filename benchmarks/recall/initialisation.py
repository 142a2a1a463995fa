"""Where training begins: the parts of an induction head, so that no plateau has to be waited for.

Layers with positions prefer one of the last tokens and copy it; the first layer without positions
compares a token with the one that stands before another (Olsson et al., "In-context Learning and
Induction Heads", 2022, arXiv:2209.11895). Copies are orthogonal matrices, as in mimetic
initialisation (Trockman and Kolter, 2023, arXiv:2305.09828). All of it is then trained.
"""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.recall.vocabulary import FILLER

STREAM = 0.5
"""Spread of the embeddings, and of what a layer adds to them."""

LOGITS = 0.2
"""Of the last norm: embeddings of this spread are also the rows of the head."""

PLACE = 2.0
"""Spread of the biases by which a head prefers a place."""

LIKENESS = 0.15
"""Spread of the weights by which a head compares tokens."""

FILLER_SIZE = 48
"""Dimensions in which filler begins; no head compares them. So words that nobody looks for have
short keys, and stay alike to each other: the bounds of a block of them are low."""

CALM = 0.2
"""Other parts at first have so much less weight."""


@torch.no_grad()
def initialise(model: Any) -> None:
    """Set the weights of a new decoder, from torch's generator."""
    decoder = model.model
    _embed(decoder.embed_tokens.weight)
    decoder.norm.weight.fill_(LOGITS)
    copies: list[torch.Tensor] = []
    for layer in decoder.layers:
        layer.mlp.down_proj.weight.mul_(STREAM * CALM)
        attention = layer.self_attn
        if attention.use_rope:
            copies.append(_copy(attention, _turn(model.config.hidden_size)))
            _prefer(attention, len(copies), model.config.rope_parameters["rope_theta"])
        else:
            _copy(attention, torch.eye(model.config.hidden_size))
            _compare(attention, copies[0])


def _embed(weight: torch.Tensor) -> None:
    """Filler in some dimensions, the words of records in the others, all of one length."""
    size = weight.shape[1]
    torch.nn.init.normal_(weight, std=STREAM)
    weight[FILLER.start :, FILLER_SIZE:] = 0
    weight[FILLER.start :].mul_((size / FILLER_SIZE) ** 0.5)
    weight[: FILLER.start, :FILLER_SIZE] = 0
    weight[: FILLER.start].mul_((size / (size - FILLER_SIZE)) ** 0.5)


def _turn(size: int) -> torch.Tensor:
    """An orthogonal matrix that keeps the dimensions of filler among themselves."""
    empty = [torch.empty(part, part) for part in (FILLER_SIZE, size - FILLER_SIZE)]
    parts = [torch.nn.init.orthogonal_(part) for part in empty]
    turn: torch.Tensor = torch.block_diag(*parts)  # type: ignore[no-untyped-call]
    return turn


def _copy(attention: Any, matrix: torch.Tensor) -> torch.Tensor:
    """Add ``matrix`` times what is seen to the stream; returns ``matrix``."""
    groups = attention.num_key_value_groups
    basis = torch.nn.init.orthogonal_(attention.v_proj.weight)
    heads = basis.view(-1, attention.head_dim, basis.shape[1]).repeat_interleave(groups, 0)
    attention.o_proj.weight.copy_(matrix @ heads.flatten(0, 1).T * (STREAM / groups))
    return matrix


def _prefer(attention: Any, back: int, theta: float) -> None:
    """Look at the token ``back`` places before."""
    half = attention.head_dim // 2
    attention.q_proj.weight.mul_(CALM)
    place = torch.randn(attention.k_proj.out_features // (2 * half), 2, half) * PLACE
    attention.k_proj.bias.copy_(place.flatten())
    angle = back * theta ** -(torch.arange(half) / half)
    cos, sin = angle.cos(), angle.sin()
    left, right = place[:, 0], place[:, 1]
    turned = torch.stack((left * cos + right * sin, right * cos - left * sin), 1)
    heads = turned.repeat_interleave(attention.num_key_value_groups, 0)
    attention.q_proj.bias.copy_(heads.flatten())


def _compare(attention: Any, copied: torch.Tensor) -> None:
    """Look where ``copied`` has put what resembles the token that looks."""
    look = torch.nn.init.normal_(attention.k_proj.weight, std=LIKENESS).clone()
    look[:, :FILLER_SIZE] = 0
    attention.k_proj.weight.copy_(look @ copied.T)
    heads = look.view(-1, attention.head_dim, look.shape[1])
    heads = heads.repeat_interleave(attention.num_key_value_groups, 0)
    attention.q_proj.weight.copy_(heads.flatten(0, 1))
