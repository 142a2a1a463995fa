"""Proves at the start that stored pages give the logits that computing them gave."""

from __future__ import annotations

import numpy as np
import torch

from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.failures import StartFailure
from longspan.worker.generation.plan import Chunk, SequenceId, StepPlan
from longspan.worker.generation.runner import Runner

TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference of logits, as a part of the largest logit: chunks round differently."""


def self_check(runner: Runner, *, vocabulary: int, step_tokens: int) -> None:
    """Warm up, and compare a prompt read at once with the same prompt over stored pages.

    Raises:
        StartFailure: the decoder computes nonsense here.
    """
    pages = np.array([1, 0], np.int32)
    tokens = (np.arange(PAGE_TOKENS + 7, dtype=np.uint32) * 31 + 5) % vocabulary
    whole = _logits(runner, tokens, 0, len(tokens), pages)
    _logits(runner, tokens, PAGE_TOKENS, len(tokens) - 1, pages)
    stored = _logits(runner, tokens, len(tokens) - 1, len(tokens), pages)
    if not torch.isfinite(whole).all():
        raise StartFailure("self-check failed: the decoder's logits are not finite")
    difference = (whole - stored).abs().max() / whole.abs().max().clamp_min(1e-6)
    if not difference <= TOLERANCE[runner.dtype]:
        raise StartFailure(
            f"self-check failed: logits over stored pages differ by {float(difference):.2g} "
            "of the largest"
        )


def _logits(
    runner: Runner,
    tokens: np.ndarray[tuple[int], np.dtype[np.uint32]],
    start: int,
    end: int,
    pages: np.ndarray[tuple[int], np.dtype[np.int32]],
) -> torch.Tensor:
    table = pages[: -(-end // PAGE_TOKENS)]
    chunk = Chunk(SequenceId(0), start, tokens[start:end], table, samples=True)
    return runner.run(StepPlan((chunk,)))[0].float().cpu()
