"""Bounds of one step of the generation engine, and the shares of its prefills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OPEN_SEQUENCES = 4096
"""Sequences that a stream may have open."""

SHORT_TOKENS = 2048
"""A sequence that costs at most this many prefill tokens is short."""

SHORT_SHARE = 0.2
"""Part of the prefill tokens that short sequences may take from long ones, in the long run."""

SHORT_BURST_TOKENS = 2 * SHORT_TOKENS
"""What short sequences may take at once, above their share."""

HEAD_START_S = 15.0
"""How much later a sequence may arrive and still go first, for each level of priority."""

WEIGHTS: Mapping[int, int] = {1: 1, 2: 2, 3: 4}
"""Prefill shares of long sequences by priority: batch, normal, interactive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLimits:
    """Largest engine step.

    Attributes:
        budget_tokens: tokens of all chunks together.
        sequences: chunks.

    Raises:
        ValueError: a limit is not positive.
    """

    budget_tokens: int = 16_384
    sequences: int = 32

    def __post_init__(self) -> None:
        if self.budget_tokens < 1 or self.sequences < 1:
            raise ValueError("a step takes at least one token and one sequence")
