"""transformers' ``generate``: one request after the other.

python -m benchmarks.peers.transformers_generate FOLDER DTYPE DEVICE
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.protocol import Answer, Clock, Engine, Work, serve


class FirstToken:
    """A streamer that only looks at the clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._prompt_seen = False

    def put(self, tokens: Any) -> None:
        """The prompt comes first, then each token."""
        if self._prompt_seen:
            self._clock.token(int(tokens))
        self._prompt_seen = True

    def end(self) -> None:
        """Nothing is held back."""


def load(folder: str, dtype: str, device: str, attention: str) -> Any:
    """The unmodified model in evaluation mode."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation=attention
    )
    return model.to(device).eval()


def start(arguments: Sequence[str]) -> Engine:
    """Load the model with transformers' default attention."""
    import torch

    folder, dtype, device = arguments
    model = load(folder, dtype, device, "sdpa")

    @torch.inference_mode()
    def answer(work: Work) -> list[Answer]:
        started = time.perf_counter()
        clocks = [Clock(started) for _ in work.prompts]
        for clock, prompt in zip(clocks, work.prompts, strict=True):
            ids = torch.tensor([prompt], device=device)
            model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=work.new_tokens,
                do_sample=False,
                streamer=FirstToken(clock),
            )
        return [clock.answer() for clock in clocks]

    return answer


if __name__ == "__main__":
    serve(start)
