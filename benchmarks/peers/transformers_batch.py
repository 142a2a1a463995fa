"""transformers' continuous batching, as ``generate_batch`` runs it.

    python -m benchmarks.peers.transformers_batch FOLDER DTYPE DEVICE ATTENTION

Its manager is made anew for every piece of work, sized by its hints as ``generate_batch`` does;
the clock starts when the manager runs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from benchmarks.peers.protocol import Answer, Clock, Engine, Work, serve
from benchmarks.peers.transformers_generate import load

MEMORY_SHARE = 0.3
"""Of the free memory, for the cache: the default takes 0.6, and others live here too."""


def start(arguments: Sequence[str]) -> Engine:
    """Load the model with an attention that takes pages."""
    import transformers
    from transformers.generation.configuration_utils import ContinuousBatchingConfig
    from transformers.generation.continuous_batching.utils import WorkloadHints

    configs: Any = transformers
    folder, dtype, device, attention = arguments
    model = load(folder, dtype, device, attention)
    settings = ContinuousBatchingConfig(
        max_memory_percent=MEMORY_SHARE if device == "cpu" else None
    )

    def answer(work: Work) -> list[Answer]:
        hints = WorkloadHints(
            max_prompt_length=max(map(len, work.prompts)),
            max_generated_length=work.new_tokens,
            num_requests=len(work.prompts),
        )
        greedy = configs.GenerationConfig(
            do_sample=False, max_new_tokens=work.new_tokens, eos_token_id=-1, pad_token_id=0
        )
        with model.continuous_batching_context_manager(
            generation_config=greedy, continuous_batching_config=settings, workload_hints=hints
        ) as manager:
            started = time.perf_counter()
            names = manager.add_requests(
                [list(prompt) for prompt in work.prompts],
                max_new_tokens=work.new_tokens,
                record_timestamps=True,
            )
            results: dict[str, object] = {}
            while len(results) < len(names):
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    results[result.request_id] = result
                elif result is None and not manager.is_running():
                    raise RuntimeError("generation stopped")
        return [_answer(results[name], started) for name in names]

    return answer


def _answer(result: object, started: float) -> Answer:
    error = getattr(result, "error", None)
    if error:
        raise RuntimeError(error)
    clock = Clock(started)
    tokens: list[int] = getattr(result, "generated_tokens", [])
    times: list[float] = getattr(result, "timestamps", [])
    for token, now in zip(tokens, times, strict=True):
        clock.token(token, now)
    return clock.answer()


if __name__ == "__main__":
    serve(start)
