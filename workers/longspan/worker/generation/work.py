"""What a chunk costs: its tokens, and the attention of each to all before it.

The unit is the cost of a token at the beginning of a text. Measured in tokens alone, the end
of a long document looks as cheap as its beginning; it is not (Agrawal et al., "Medha", 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt


@dataclass(frozen=True, slots=True)
class Work:
    """The cost of chunks.

    Attributes:
        parity_tokens: position of a token whose attention costs as much as all the rest of it.
    """

    parity_tokens: int

    def of(self, start: int, tokens: int) -> float:
        """Cost of the positions from ``start`` on."""
        return tokens + tokens * (start + tokens / 2) / self.parity_tokens

    def affordable(self, start: int, work: float) -> int:
        """The most tokens from ``start`` on that cost at most ``work``."""
        if work <= 0:
            return 0
        first = 1 + start / self.parity_tokens
        return int(2 * work / (first + sqrt(first * first + 2 * work / self.parity_tokens)))
