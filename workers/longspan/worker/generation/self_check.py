"""Proves at the start that stored pages give the logits that computing them gave."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.failures import StartFailure
from longspan.worker.generation.plan import Chunk, SequenceId, StepPlan
from longspan.worker.generation.runner import Runner
from longspan.worker.models.seam import ATTENTION

Tokens = npt.NDArray[np.uint32]

SHORT_TOKENS = 24

TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference of logits, as a part of the largest logit: chunks round differently."""


EIGHT_BIT_TOLERANCE = 1e-1
"""The same where pages hold 8 bits: what is compared with never went through them."""


def self_check(runner: Runner, model: Any, *, vocabulary: int) -> float:
    """Warm up, compare with the model's own attention, and stored pages with computed ones.

    Returns:
        Seconds that a token took in a step of a page.

    Raises:
        StartFailure: the decoder computes nonsense here.
    """
    pages = np.array([1, 0], np.int32)
    tokens = (np.arange(PAGE_TOKENS + 7, dtype=np.uint32) * 31 + 5) % vocabulary
    tolerance = max(TOLERANCE[runner.dtype], EIGHT_BIT_TOLERANCE if runner.eight_bit else 0.0)
    short = _logits(runner, tokens[:SHORT_TOKENS], 0, SHORT_TOKENS, pages)
    _compare(
        "the model's own attention", _own(model, tokens[:SHORT_TOKENS], runner), short, tolerance
    )
    started = time.perf_counter()
    whole = _logits(runner, tokens, 0, len(tokens), pages)
    took_s = time.perf_counter() - started
    _logits(runner, tokens, PAGE_TOKENS, len(tokens) - 1, pages)
    stored = _logits(runner, tokens, len(tokens) - 1, len(tokens), pages)
    _compare("stored pages", whole, stored, tolerance)
    return took_s / len(tokens)


def _compare(what: str, expected: torch.Tensor, actual: torch.Tensor, tolerance: float) -> None:
    if not torch.isfinite(expected).all():
        raise StartFailure("self-check failed: the decoder's logits are not finite")
    difference = (expected - actual).abs().max() / expected.abs().max().clamp_min(1e-6)
    if not difference <= tolerance:
        raise StartFailure(
            f"self-check failed: logits with {what} differ by {float(difference):.2g} "
            "of the largest"
        )


@torch.inference_mode()
def _own(model: Any, tokens: Tokens, runner: Runner) -> torch.Tensor:
    """The last logits as transformers computes them in eager mode: [vocabulary]."""
    ids = torch.from_numpy(tokens.astype(np.int64))[None].to(runner.device)
    model.set_attn_implementation("eager")
    try:
        logits: torch.Tensor = model.forward(input_ids=ids, use_cache=False).logits[0, -1]
    finally:
        model.set_attn_implementation(ATTENTION)
    return logits.float().cpu()


def _logits(
    runner: Runner, tokens: Tokens, start: int, end: int, pages: npt.NDArray[np.int32]
) -> torch.Tensor:
    tables = tuple(pages[: -(-end // PAGE_TOKENS)] + 2 * frame for frame in range(runner.frames))
    chunk = Chunk(SequenceId(0), start, tokens[start:end], tables, samples=True)
    return runner.run(StepPlan((chunk,)))[0].float().cpu()
