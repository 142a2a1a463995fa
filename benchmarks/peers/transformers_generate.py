"""transformers' ``generate``: one request after the other, or all together.

    python -m benchmarks.peers.transformers_generate FOLDER DTYPE DEVICE [ATTENTION [together]]

Together they are one batch, which takes prompts of one length.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.protocol import Answer, Clock, Engine, Work, serve


class Tokens:
    """A streamer that only looks at the clocks."""

    def __init__(self, clocks: Sequence[Clock]) -> None:
        self._clocks = clocks
        self._prompt_seen = False

    def put(self, tokens: Any) -> None:
        """The prompts come first, then a token of each."""
        if self._prompt_seen:
            for clock, token in zip(self._clocks, tokens.tolist(), strict=True):
                clock.token(token)
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
    """Load the model, with transformers' default attention where none is named."""
    import torch

    folder, dtype, device, *more = arguments
    attention, *together = more or ["sdpa"]
    model = load(folder, dtype, device, attention)

    @torch.inference_mode()
    def generate(prompts: Sequence[Sequence[int]], clocks: Sequence[Clock], tokens: int) -> None:
        ids = torch.tensor([list(prompt) for prompt in prompts], device=device)
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            streamer=Tokens(clocks),
        )

    def answer(work: Work) -> list[Answer]:
        started = time.perf_counter()
        clocks = [Clock(started) for _ in work.prompts]
        if together:
            generate(work.prompts, clocks, work.new_tokens)
        else:
            for clock, prompt in zip(clocks, work.prompts, strict=True):
                generate([prompt], [clock], work.new_tokens)
        return [clock.answer() for clock in clocks]

    return answer


if __name__ == "__main__":
    serve(start)
