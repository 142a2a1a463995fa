"""What steps have computed since somebody was told; every count is told once."""

from __future__ import annotations

from dataclasses import dataclass, field

from longspan.internal.v1 import worker_service_pb2 as pb


@dataclass(slots=True)
class Tally:
    """The counts of one stream; every heartbeat takes them along, so that they stay few.

    Attributes:
        step_tokens: of each step.
        waits_s: how long texts, or chunks of prompts, were ready before a step took them.
        prefill_tokens, cached_tokens, decode_tokens: of prompts, computed and found, and sampled.
        computed_pages: whole pages of prompts that were computed, and
        missing_pages: those of them that lay nowhere below the pool either.
    """

    step_tokens: list[int] = field(default_factory=list)
    waits_s: list[float] = field(default_factory=list)
    prefill_tokens: int = 0
    cached_tokens: int = 0
    decode_tokens: int = 0
    computed_pages: int = 0
    missing_pages: int = 0

    def step(self, tokens: int, prefill_tokens: int, decode_tokens: int) -> None:
        """A step of a decoder is over; its chunks of prompts had so many tokens."""
        self.step_tokens.append(tokens)
        self.prefill_tokens += prefill_tokens
        self.decode_tokens += decode_tokens

    def pages(self, computed: int, missing: int) -> None:
        """Pages became full; of an answer's pages nobody asked whether they are there."""
        self.computed_pages += max(computed, 0)
        self.missing_pages += missing

    def drain(self) -> pb.Computed | None:
        """All of it as a message, and begin anew; None where there is nothing."""
        told = pb.Computed(
            step_tokens=self.step_tokens,
            waits_s=self.waits_s,
            prefill_tokens=self.prefill_tokens,
            cached_tokens=self.cached_tokens,
            decode_tokens=self.decode_tokens,
            computed_pages=self.computed_pages,
            missing_pages=self.missing_pages,
        )
        if not told.ByteSize():
            return None
        self.step_tokens, self.waits_s = [], []
        self.prefill_tokens = self.cached_tokens = self.decode_tokens = 0
        self.computed_pages = self.missing_pages = 0
        return told
