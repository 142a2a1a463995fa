"""Exact union of attention over disjoint sets of keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from longspan.worker.attention.base import Attended


def merge(parts: Sequence[Attended]) -> Attended:
    """Attention over the union of the parts' keys, which must be disjoint.

    Each part is weighted by exp(lse), the mass it stands for (Dao et al., FlashAttention, 2022;
    Liu et al., RingAttention, 2023). A part with lse of -inf has no keys and counts nothing;
    where all have none, so has the union: its output is 0.
    """
    if len(parts) == 1:
        return parts[0]
    lses = torch.stack([part.lse for part in parts])
    lse = lses.logsumexp(0)
    # Where no part has keys, nothing weighs nothing.
    weights = (lses - lse.clamp(min=torch.finfo(lse.dtype).min)).exp()
    out = sum(
        weight.unsqueeze(-1) * part.out.float() for weight, part in zip(weights, parts, strict=True)
    )
    assert isinstance(out, torch.Tensor)
    return Attended(out.to(parts[0].out.dtype), lse)


def joined(parts: Iterable[Attended]) -> Attended:
    """Attention of other queries in each part, one behind the other."""
    done = list(parts)
    if len(done) == 1:
        return done[0]
    return Attended(torch.cat([part.out for part in done]), torch.cat([part.lse for part in done]))


def with_sinks(out: torch.Tensor, lse: torch.Tensor, sinks: torch.Tensor) -> torch.Tensor:
    """The output after one more key of zero value whose score is learned, per head.

    ``out`` is [tokens, heads, dv], ``lse`` [tokens, heads], ``sinks`` [heads] (GPT-OSS); the
    result is shaped as ``out``.
    """
    share = torch.sigmoid(lse - sinks.float())
    return (out.float() * share.unsqueeze(-1)).to(out.dtype)
