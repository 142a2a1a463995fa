"""Runs one step: a packed row of tokens through the model, logits where they are sampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from longspan.worker.attention.base import Backend
from longspan.worker.attention.pool import LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.generation.plan import Chunk, StepPlan
from longspan.worker.models.seam import PagedCache, Step


class Runner:
    """A decoder, its KV pages, and the attention between them.

    Args:
        model: a causal language model of transformers, loaded with the seam's attention.
        layers: its KV pages.
        backend: computes attention on the model's device.
    """

    def __init__(self, model: torch.nn.Module, layers: list[LayerPages], backend: Backend) -> None:
        self._model = model
        self._layers = layers
        self._backend = backend
        self._cache = PagedCache()
        self.device = layers[0].keys.device
        self.dtype = layers[0].keys.dtype

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> torch.Tensor:
        """The logits of the chunks that sample, in their order: [sampled, vocabulary]."""
        chunks = plan.chunks
        rows = attention_rows(chunks)
        ids = np.concatenate([chunk.tokens for chunk in chunks]).astype(np.int64)
        positions = np.concatenate([np.arange(chunk.start, chunk.end) for chunk in chunks])
        last = rows.offsets[1:] - 1
        kept = last[np.array([chunk.samples for chunk in chunks])]
        backend_plan = self._backend.plan(rows, self.device)
        step = Step(self._backend, backend_plan, rows.slots(self.device), self._layers)
        self._cache.step = step
        logits: torch.Tensor = self._model(
            input_ids=self._tensor(ids)[None],
            position_ids=self._tensor(positions)[None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=self._tensor(kept),
            longspan=step,
        ).logits
        return logits[0]

    def _tensor(self, values: np.ndarray[tuple[int], np.dtype[np.int64]]) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device, non_blocking=True)


def attention_rows(chunks: Sequence[Chunk]) -> AttentionRows:
    """The integers of a step that attention is planned from."""
    return AttentionRows(
        np.array([chunk.start for chunk in chunks], np.int64),
        np.array([len(chunk.tokens) for chunk in chunks], np.int64),
        [chunk.block_table for chunk in chunks],
    )
