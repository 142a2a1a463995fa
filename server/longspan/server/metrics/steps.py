"""Steps of the models: their sizes, what waited for them, and their tokens."""

from __future__ import annotations

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.metrics.families import Families

WAIT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)


class StepMetrics:
    """Counted by workers, which tell with each step."""

    def __init__(self, families: Families) -> None:
        self._waits = families.histogram(
            "longspan_batch_wait_seconds",
            "How long a text, or a chunk of a prompt, was ready before a step took it.",
            WAIT_S,
            "role",
        )
        self._sizes = families.histogram(
            "longspan_batch_tokens", "Tokens of a step, padding excluded.", TOKENS, "role"
        )
        self._steps = families.counter(
            "longspan_steps_total", "Steps that models have finished.", "role"
        )
        self._tokens = families.counter(
            "longspan_tokens_total",
            "Tokens of decoders: computed of prompts (prefill), found in KV pages (cached), "
            "sampled (decode).",
            "kind",
        )
        for kind in ("prefill", "cached", "decode"):
            self._tokens.labels(kind)

    def computed(self, role: str, told: pb.Computed) -> None:
        """A worker tells what it has computed since it told last."""
        waits, sizes = self._waits.labels(role), self._sizes.labels(role)
        for wait_s in told.waits_s:
            waits.observe(max(wait_s, 0.0))
        for tokens in told.step_tokens:
            sizes.observe(tokens)
        self._steps.labels(role).inc(len(told.step_tokens))
        self._tokens.labels("prefill").inc(told.prefill_tokens)
        self._tokens.labels("cached").inc(told.cached_tokens)
        self._tokens.labels("decode").inc(told.decode_tokens)
