"""What a replay counts."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.trace_replay.trace import Request, cost_of


@dataclass(slots=True)
class Tally:
    """Blocks, tokens and computing of prompts, and how much of them was found.

    A block counts as found only where all blocks before it were found as well.
    """

    blocks: int = 0
    tokens: int = 0
    work: float = 0.0
    found_blocks: int = 0
    found_tokens: int = 0
    found_work: float = 0.0

    def add(self, request: Request, found: int) -> None:
        """One more prompt, and how many of its first blocks were found."""
        costs = [cost_of(depth) for depth in range(len(request.tokens))]
        self.blocks += len(request.tokens)
        self.tokens += sum(request.tokens)
        self.work += sum(costs)
        self.found_blocks += found
        self.found_tokens += sum(request.tokens[:found])
        self.found_work += sum(costs[:found])

    @property
    def block_rate(self) -> float:
        """Share of the blocks found."""
        return self.found_blocks / self.blocks

    @property
    def token_rate(self) -> float:
        """Share of the tokens found."""
        return self.found_tokens / self.tokens

    @property
    def work_rate(self) -> float:
        """Share of the computing saved."""
        return self.found_work / self.work
