"""Decode steps replayed as CUDA graphs: one launch a step instead of one a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.folded import padded
from longspan.worker.attention.policy import FULL_MODEL, ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS, Slots
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.generation.buckets import block_bucket, bucket_for


@dataclass(frozen=True, slots=True, eq=False)
class DecodeInputs:
    """The integers of a decode step: one token a sequence.

    They are kept in two tensors, so that a step is sent to the device in two copies.

    Attributes:
        integers: int64 [rows, 5]; the properties name its columns.
        block_tables: int32 [rows, blocks].
    """

    integers: torch.Tensor
    block_tables: torch.Tensor

    @property
    def rows(self) -> int:
        """Sequences of the step."""
        return len(self.integers)

    @property
    def ids(self) -> torch.Tensor:
        """int64 [rows], the tokens."""
        return self.integers[:, 0]

    @property
    def positions(self) -> torch.Tensor:
        """int64 [rows], where the tokens stand in their sequences."""
        return self.integers[:, 1]

    @property
    def slots(self) -> Slots:
        """Where the tokens' keys and values are stored."""
        return Slots(self.integers[:, 2], self.integers[:, 3], None)

    @property
    def keys(self) -> torch.Tensor:
        """int32 [rows], the keys that each token sees, its own among them."""
        return self.integers[:, 4].int()

    def first(self, rows: int, blocks: int) -> DecodeInputs:
        """The same memory, fewer rows and shorter block tables."""
        return DecodeInputs(self.integers[:rows], self.block_tables[:rows, :blocks])

    def to(self, device: torch.device) -> DecodeInputs:
        """The same on another device."""
        return DecodeInputs(self.integers.to(device), self.block_tables.to(device))

    def copy_(self, source: DecodeInputs) -> None:
        """Take over the contents of inputs of the same shape."""
        self.integers.copy_(source.integers)
        self.block_tables.copy_(source.block_tables)


Forward = Callable[[DecodeInputs, ModelPolicy], torch.Tensor]
"""A decode step: logits [rows, vocabulary]. It must not wait for the device."""

Repeat = Callable[[], torch.Tensor]
"""Repeats a step with what its inputs hold by then; the next call overwrites the logits."""


class Capture(Protocol):
    """Makes a step that can be repeated whenever its inputs have been refilled."""

    def __call__(self, step: Repeat, device: torch.device) -> Repeat:
        """Returns what repeats ``step``."""
        ...


class DecodeGraphs:
    """Runs decode steps, padded to a bucket, through one graph for each bucket.

    Graphs of full attention are captured at the start, and have the longest block tables. Those of
    other policies look at whole block tables in every layer: each length of a table, doubled from
    ``LEAST_BLOCKS`` on, is captured when it is first needed.

    Args:
        forward: the step; it reads its integers from the inputs it is given and nowhere else.
        buckets: batch sizes, ascending; larger steps run eagerly.
        device: of the model.
        blocks: most pages of one sequence.
        scratch_page: a page of no sequence. Rows that only pad write to it and read it.
        capture: how a step is made repeatable; None for a CUDA graph.
    """

    def __init__(
        self,
        forward: Forward,
        buckets: Sequence[int],
        device: torch.device,
        *,
        blocks: int,
        scratch_page: int,
        capture: Capture | None = None,
    ) -> None:
        self._forward = forward
        self._buckets = tuple(buckets)
        self._device = device
        self._blocks = blocks
        self._scratch_page = scratch_page
        self._capture = capture or CudaCapture()
        # Allocated once: a smaller bucket is the first rows of the largest.
        self._inputs = padding(self._buckets[-1], blocks, scratch_page).to(device)
        self._steps: dict[tuple[int, int, str], Repeat] = {}

    def warm_up(self) -> None:
        """Capture every bucket, the largest first, so that the others fit into its memory."""
        for bucket in reversed(self._buckets):
            self._step(bucket, self._blocks, FULL_MODEL)

    def run(self, inputs: DecodeInputs, policy: ModelPolicy = FULL_MODEL) -> torch.Tensor:
        """The logits, [rows, vocabulary], of ``inputs`` on the CPU; valid until the next call."""
        bucket = bucket_for(self._buckets, inputs.rows)
        if bucket is None:
            return self._forward(inputs.to(self._device), policy)
        blocks = self._blocks
        if not policy.full:
            blocks = block_bucket(inputs.block_tables.shape[1], blocks)
        filled = pad(inputs, bucket, blocks, self._scratch_page)
        self._inputs.first(bucket, blocks).copy_(filled)
        return self._step(bucket, blocks, policy)()[: inputs.rows]

    def _step(self, bucket: int, blocks: int, policy: ModelPolicy) -> Repeat:
        key = bucket, blocks, "" if policy.full else policy.name
        if key not in self._steps:
            inputs = self._inputs.first(bucket, blocks)
            step = partial(self._forward, inputs, policy)
            self._steps[key] = self._capture(step, self._device)
        return self._steps[key]


class CudaCapture:
    """CUDA graphs that share one pool of memory: no two of them run at once."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, step: Repeat, device: torch.device) -> Repeat:
        """See ``Capture``."""
        with torch.cuda.device(device):
            # Not in the graph, and on another stream: on first use libraries allocate
            # workspaces and compile kernels, which a capture does not allow.
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(2):
                    step()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            # Pages are moved by another thread meanwhile, which may wait and allocate.
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                logits = step()
        self._pool = self._pool or graph.pool()

        def replay() -> torch.Tensor:
            graph.replay()
            return logits

        return replay


def repeat_eagerly(step: Repeat, device: torch.device) -> Repeat:
    """A ``Capture`` without a graph: the same buffers and the same padding, in plain calls."""
    return step


def decode_inputs(ids: npt.NDArray[np.uint32], rows: AttentionRows) -> DecodeInputs:
    """The inputs of a step whose chunks have one token each, on the CPU."""
    assert rows.tokens == len(ids) == len(rows.starts), "a decode step has one token a sequence"
    tables = padded(rows.block_tables)
    pages = tables[np.arange(len(ids)), rows.starts // PAGE_TOKENS]
    columns = (ids, rows.starts, pages, rows.starts % PAGE_TOKENS, rows.ends)
    integers = np.stack([column.astype(np.int64) for column in columns], axis=1)
    return DecodeInputs(torch.from_numpy(integers), torch.from_numpy(tables))


def padding(rows: int, blocks: int, scratch_page: int) -> DecodeInputs:
    """Rows that store a first token in the scratch page and attend to it alone."""
    integers = torch.tensor([0, 0, scratch_page, 0, 1]).repeat(rows, 1)
    return DecodeInputs(integers, torch.full((rows, blocks), scratch_page, dtype=torch.int32))


def pad(inputs: DecodeInputs, rows: int, blocks: int, scratch_page: int) -> DecodeInputs:
    """The inputs as the first of ``rows`` rows, with block tables of ``blocks`` pages."""
    used, pages = inputs.block_tables.shape
    assert pages <= blocks, "a sequence is longer than the context"
    padded = padding(rows, blocks, scratch_page)
    padded.integers[:used] = inputs.integers
    padded.block_tables[:used, :pages] = inputs.block_tables
    return padded
