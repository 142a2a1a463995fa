"""Bounds of one step of the generation engine, and the shares of its prefills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OPEN_SEQUENCES = 4096
"""Sequences that a stream may have open."""

SHORT_TOKENS = 2048
"""A sequence that costs at most this many prefill tokens is short."""

SHORT_SHARE = 0.2
"""Part of the prefill work that short sequences may take from long ones, in the long run."""

SHORT_BURST = 2.0 * SHORT_TOKENS
"""Work that short sequences may have done at once, above their share."""

ALONE_FACTOR = 4
"""Work of a step that only prefills long sequences, in budgets; a limit deep in a text."""

SHARED_FACTOR = 2
SHARED_WORK = 4096
"""Work of a step that prefills long sequences while others wait for its end, in budgets and
at most: its length is a part of their latency."""

SHARED_S = 10.0
"""How long after one of those others the next one is expected."""

SMALLEST_CHUNK = 16
"""Tokens that the first prefill of a step gets however costly they are."""

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
        parity_tokens: position of a token whose attention costs as much as all the rest of it;
            about parameters / (2 x layers x heads x head size).

    Raises:
        ValueError: a limit is not positive.
    """

    budget_tokens: int = 16_384
    sequences: int = 32
    parity_tokens: int = 16_384

    def __post_init__(self) -> None:
        if min(self.budget_tokens, self.sequences, self.parity_tokens) < 1:
            raise ValueError("a step takes at least one token and one sequence")
