"""Runs one step: a packed row of tokens through the model, logits where they are sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.base import Backend
from longspan.worker.attention.decode_attention import DecodeAttention
from longspan.worker.attention.eight_bit import EightBitPages
from longspan.worker.attention.eight_bit_backend import EightBitBackend
from longspan.worker.attention.folded import FoldedBackend
from longspan.worker.attention.host_backend import HostBackend
from longspan.worker.attention.host_pages import HostPages
from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.step_attention import step_attention
from longspan.worker.generation.captured import Group, captured_groups
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
        self._backends = frame_backends(layers, backend)
        self._cache = PagedCache()
        self.device = layers[0].keys.device
        self.dtype = stored_dtype(layers)
        self.graphs: DecodeGraphs | None = None

    def compile(self) -> None:
        """Run the model through torch.compile from now on."""
        keep_uncompiled(self._cache)
        self._model.compile(dynamic=True)

    @property
    def frames(self) -> int:
        """Frames of a page."""
        return len(self._backends)

    @property
    def eight_bit(self) -> bool:
        """True where some layer's pages are in 8 bits."""
        return any(isinstance(layer, EightBitPages) for layer in self._layers)

    @property
    def paged_kernel(self) -> bool:
        """True where ``decode`` works: attention is a paged flash kernel, of all layers at once."""
        return isinstance(self._backend, FoldedBackend) and self._backends == [self._backend]

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> torch.Tensor:
        """The logits of the chunks that sample, in their order: [sampled, vocabulary]."""
        groups = captured_groups(plan.chunks) if self.graphs is not None else None
        if self.graphs is not None and groups is not None:
            return self._replay(self.graphs, plan.chunks, groups)
        rows = [attention_rows(plan.chunks, frame) for frame in range(len(self._backends))]
        ids = np.concatenate([chunk.tokens for chunk in plan.chunks])
        positions = np.concatenate([np.arange(chunk.start, chunk.end) for chunk in plan.chunks])
        samples = np.array([chunk.samples for chunk in plan.chunks])
        views = [chunk.view for chunk in plan.chunks]
        attention = step_attention(self._backends, rows, views, self.device)
        asked = noted(plan.chunks)._asdict()
        slots = [r.slots(self.device, **asked) for r in rows]
        return self._forward(
            self._tensor(ids.astype(np.int64)),
            self._tensor(positions),
            Step(attention, slots, self._layers),
            self._tensor(rows[0].offsets[1:][samples] - 1),
        )

    @torch.inference_mode()
    def decode(self, inputs: DecodeInputs, policy: ModelPolicy) -> torch.Tensor:
        """One token for every row, from integers on the device: [rows, vocabulary].

        Fit for a CUDA graph: no shape depends on the integers' values. For paged kernels only.
        """
        assert isinstance(self._backend, FoldedBackend)
        attention = DecodeAttention(self._backend, policy, inputs.block_tables, inputs.keys)
        step = Step(attention, [inputs.slots], self._layers)
        return self._forward(inputs.ids, inputs.positions, step, 0)

    def _replay(
        self, graphs: DecodeGraphs, chunks: Sequence[Chunk], groups: Sequence[Group]
    ) -> torch.Tensor:
        """A decode step, graph by graph."""
        logits: list[torch.Tensor] = [torch.empty(0)] * len(chunks)
        for group in groups:
            members = [chunks[index] for index in group.rows]
            rows = attention_rows(members)
            ids = np.concatenate([chunk.tokens for chunk in members])
            out = graphs.run(decode_inputs(ids, rows), group.policy)
            if (rows.ends % PAGE_TOKENS == 0).any():
                self._complete(rows, members)
            if len(groups) == 1:
                return out
            for index, row in zip(group.rows, out, strict=True):
                logits[index] = row
        return torch.stack(logits)

    def _complete(self, rows: AttentionRows, chunks: Sequence[Chunk]) -> None:
        """What is noted down of pages that became full; a step looks at none of its last ones."""
        asked = noted(chunks)
        if asked.bounds or asked.summaries:
            slots = rows.slots(self.device, **asked._asdict())
            for layer in self._layers:
                layer.complete(slots)

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


class Noted(NamedTuple):
    """What is noted down of pages that become full; see ``AttentionRows.slots``."""

    bounds: bool
    summaries: bool
    sums: bool
    copies: bool


def noted(chunks: Sequence[Chunk]) -> Noted:
    """What the policies of a step will look at."""
    policies = {id(chunk.view.policy): chunk.view.policy for chunk in chunks}.values()
    return Noted(
        bounds=any(one.selects for one in policies),
        summaries=any(one.summarises for one in policies),
        sums=any(one.linear_layers for one in policies),
        copies=any(one.four_bit for one in policies),
    )


def frame_backends(layers: Sequence[LayerPages], backend: Backend) -> list[Backend]:
    """What attends over the layers of each frame of a page."""
    restoring = EightBitBackend(backend)
    found: dict[int, Backend] = {}
    for layer in layers:
        if isinstance(layer, EightBitPages):
            found[layer.frame] = restoring
        elif isinstance(layer, HostPages):
            found[layer.frame] = HostBackend(backend, layer.slots.slots)
    frames = max(layer.frame for layer in layers) + 1
    return [found.get(frame, backend) for frame in range(frames)]


def stored_dtype(layers: Sequence[LayerPages]) -> torch.dtype:
    """The number type that attention computes with."""
    first = layers[0]
    return first.dtype if isinstance(first, EightBitPages) else first.keys.dtype


def attention_rows(chunks: Sequence[Chunk], frame: int = 0) -> AttentionRows:
    """The integers of a step that the attention of one frame's layers is planned from."""
    known = [chunk.numbers for chunk in chunks if chunk.numbers is not None]
    return AttentionRows(
        np.array([chunk.start for chunk in chunks], np.int64),
        np.array([len(chunk.tokens) for chunk in chunks], np.int64),
        [chunk.block_tables[frame] for chunk in chunks],
        known or None,
    )
