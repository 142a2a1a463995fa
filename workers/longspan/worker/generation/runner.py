"""Runs one step: a packed row of tokens through the model, logits where they are sampled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.base import Backend
from longspan.worker.attention.folded import FoldedBackend
from longspan.worker.attention.pool import LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.step_attention import FullAttention, step_attention
from longspan.worker.generation.decode_graph import DecodeGraphs, DecodeInputs, decode_inputs
from longspan.worker.generation.plan import Chunk, StepPlan
from longspan.worker.models.seam import PagedCache, Step, keep_uncompiled


class Runner:
    """A decoder, its KV pages, and the attention between them.

    Args:
        model: a causal language model of transformers, loaded with the seam's attention.
        layers: its KV pages.
        backend: computes attention on the model's device.

    Attributes:
        graphs: replays decode steps on a GPU; None runs them as any other step.
    """

    def __init__(self, model: torch.nn.Module, layers: list[LayerPages], backend: Backend) -> None:
        self._model = model
        self._layers = layers
        self._backend = backend
        self._cache = PagedCache()
        self.device = layers[0].keys.device
        self.dtype = layers[0].keys.dtype
        self.graphs: DecodeGraphs | None = None

    def compile(self) -> None:
        """Run the model through torch.compile from now on."""
        keep_uncompiled(self._cache)
        self._model.compile(dynamic=True)

    @property
    def paged_kernel(self) -> bool:
        """True where ``decode`` works: attention is a paged flash kernel."""
        return isinstance(self._backend, FoldedBackend)

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> torch.Tensor:
        """The logits of the chunks that sample, in their order: [sampled, vocabulary]."""
        rows = attention_rows(plan.chunks)
        ids = np.concatenate([chunk.tokens for chunk in plan.chunks])
        if self.graphs is not None and all(
            decodes(chunk) and chunk.view.policy.full for chunk in plan.chunks
        ):
            return self.graphs.run(decode_inputs(ids, rows))
        positions = np.concatenate([np.arange(chunk.start, chunk.end) for chunk in plan.chunks])
        samples = np.array([chunk.samples for chunk in plan.chunks])
        views = [chunk.view for chunk in plan.chunks]
        attention = step_attention(self._backend, rows, views, self.device)
        slots = rows.slots(
            self.device,
            bounds=any(view.policy.selects for view in views),
            summaries=any(view.policy.summarises for view in views),
        )
        return self._forward(
            self._tensor(ids.astype(np.int64)),
            self._tensor(positions),
            Step(attention, slots, self._layers),
            self._tensor(rows.offsets[1:][samples] - 1),
        )

    @torch.inference_mode()
    def decode(self, inputs: DecodeInputs) -> torch.Tensor:
        """One token for every row, from integers on the device: [rows, vocabulary].

        Fit for a CUDA graph: no shape depends on the integers' values. For paged kernels only.
        """
        assert isinstance(self._backend, FoldedBackend)
        plan = self._backend.decode_plan(inputs.block_tables, inputs.keys)
        step = Step(FullAttention(self._backend, plan), inputs.slots, self._layers)
        return self._forward(inputs.ids, inputs.positions, step, 0)

    def _forward(
        self, ids: torch.Tensor, positions: torch.Tensor, step: Step, kept: torch.Tensor | int
    ) -> torch.Tensor:
        self._cache.step = step
        logits: torch.Tensor = self._model(
            input_ids=ids[None],
            position_ids=positions[None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=kept,
            longspan=step,
        ).logits
        return logits[0]

    def _tensor(self, values: npt.NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)


def decodes(chunk: Chunk) -> bool:
    """True for a chunk of one token that is sampled from."""
    return chunk.samples and len(chunk.tokens) == 1


def attention_rows(chunks: Sequence[Chunk]) -> AttentionRows:
    """The integers of a step that attention is planned from."""
    return AttentionRows(
        np.array([chunk.start for chunk in chunks], np.int64),
        np.array([len(chunk.tokens) for chunk in chunks], np.int64),
        [chunk.block_table for chunk in chunks],
    )
