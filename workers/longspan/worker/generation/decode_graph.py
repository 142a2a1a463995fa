"""Decode steps replayed as CUDA graphs: one launch a step instead of one a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.folded import padded
from longspan.worker.attention.pool import PAGE_TOKENS, Slots
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.generation.buckets import bucket_for


@dataclass(frozen=True, slots=True, eq=False)
class DecodeInputs:
    """The integers of a decode step: one token a sequence.

    Attributes:
        ids, positions: int64 [rows].
        pages, offsets: int64 [rows], where the token's keys and values go.
        block_tables: int32 [rows, blocks].
        keys: int32 [rows], keys that each row sees, its own among them.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    pages: torch.Tensor
    offsets: torch.Tensor
    block_tables: torch.Tensor
    keys: torch.Tensor

    @property
    def slots(self) -> Slots:
        """Where the row's tokens are stored."""
        return Slots(self.pages, self.offsets, None)

    @property
    def rows(self) -> int:
        """Sequences of the step."""
        return len(self.ids)

    def to(self, device: torch.device) -> DecodeInputs:
        """The same on another device."""
        return DecodeInputs(*(getattr(self, field.name).to(device) for field in fields(self)))


Forward = Callable[[DecodeInputs], torch.Tensor]
"""A decode step: logits [rows, vocabulary]. It must not wait for the device."""


class Capture(Protocol):
    """Makes a step that can be repeated whenever its inputs have been refilled."""

    def __call__(self, forward: Forward, inputs: DecodeInputs) -> Callable[[], torch.Tensor]:
        """Returns what repeats ``forward(inputs)``; its result is overwritten by the next."""
        ...


def decode_inputs(ids: npt.NDArray[np.uint32], rows: AttentionRows) -> DecodeInputs:
    """The inputs of a step of chunks of one token, on the CPU."""
    assert rows.tokens == len(ids) == len(rows.starts), "a decode step has one token a sequence"
    tables = padded(rows.block_tables)
    pages = tables[np.arange(len(ids)), rows.starts // PAGE_TOKENS].astype(np.int64)
    return DecodeInputs(
        torch.from_numpy(ids.astype(np.int64)),
        torch.from_numpy(rows.starts),
        torch.from_numpy(pages),
        torch.from_numpy(rows.starts % PAGE_TOKENS),
        torch.from_numpy(tables),
        torch.from_numpy(rows.ends.astype(np.int32)),
    )


class DecodeGraphs:
    """Runs decode steps, padded to a bucket, through one graph for each bucket.

    Args:
        forward: the step; it reads its inputs from the tensors it is given and nowhere else.
        buckets: batch sizes, ascending; larger steps run eagerly.
        device: of the model.
        blocks: most pages of one sequence.
        scratch_page: a page of no sequence. Rows that only pad write to it and read it.
        capture: how a step is made repeatable; tests on a CPU repeat it eagerly.
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
        self._scratch_page = scratch_page
        self._capture = capture or CudaCapture()
        # Allocated once, at full size: smaller buckets are the first rows of these.
        self._inputs = _empty(self._buckets[-1], blocks, device)
        self._steps: dict[int, Callable[[], torch.Tensor]] = {}

    def warm_up(self) -> None:
        """Capture every bucket, the largest first, so that the others fit into its memory."""
        for bucket in reversed(self._buckets):
            _pad(self._inputs, 0, self._scratch_page)
            self._step(bucket)

    def run(self, inputs: DecodeInputs) -> torch.Tensor:
        """The logits of the rows, [rows, vocabulary]: valid until the next call.

        ``inputs`` may lie on the CPU.
        """
        bucket = bucket_for(self._buckets, inputs.rows)
        if bucket is None:
            return self._forward(inputs.to(self._device))
        fill(self._inputs, inputs, self._scratch_page)
        return self._step(bucket)()[: inputs.rows]

    def _step(self, bucket: int) -> Callable[[], torch.Tensor]:
        if bucket not in self._steps:
            self._steps[bucket] = self._capture(self._forward, _first(self._inputs, bucket))
        return self._steps[bucket]


class CudaCapture:
    """CUDA graphs which share one pool of memory: no two of them run at once."""

    def __init__(self) -> None:
        self._pool: tuple[int, int] | None = None

    def __call__(self, forward: Forward, inputs: DecodeInputs) -> Callable[[], torch.Tensor]:
        """See ``Capture``."""
        # Outside the graph and on another stream: libraries allocate workspaces and compile
        # kernels on first use, which a capture does not allow.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                forward(inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = forward(inputs)
        self._pool = self._pool or graph.pool()

        def replay() -> torch.Tensor:
            graph.replay()
            return logits

        return replay


def repeat_eagerly(forward: Forward, inputs: DecodeInputs) -> Callable[[], torch.Tensor]:
    """A ``Capture`` without a graph: the same buffers, the same padding, plain calls."""
    return lambda: forward(inputs)


def fill(buffers: DecodeInputs, inputs: DecodeInputs, scratch_page: int) -> None:
    """Copy a step into the first rows of ``buffers``; the others become padding."""
    rows, blocks = inputs.block_tables.shape
    assert blocks <= buffers.block_tables.shape[1], "a sequence is longer than the context"
    for field in fields(DecodeInputs):
        source, target = getattr(inputs, field.name), getattr(buffers, field.name)
        if source.dim() == 2:
            target = target[:, :blocks]
        target[:rows].copy_(source, non_blocking=True)
    _pad(buffers, rows, scratch_page)


def _pad(buffers: DecodeInputs, rows: int, scratch_page: int) -> None:
    """Rows from ``rows`` on become a first token in the scratch page."""
    for integers in (buffers.ids, buffers.positions, buffers.offsets):
        integers[rows:] = 0
    buffers.pages[rows:] = scratch_page
    buffers.block_tables[rows:] = scratch_page
    buffers.keys[rows:] = 1


def _empty(rows: int, blocks: int, device: torch.device) -> DecodeInputs:
    long = [torch.zeros(rows, dtype=torch.int64, device=device) for _ in range(4)]
    tables = torch.zeros(rows, blocks, dtype=torch.int32, device=device)
    return DecodeInputs(*long, tables, torch.ones(rows, dtype=torch.int32, device=device))


def _first(inputs: DecodeInputs, rows: int) -> DecodeInputs:
    return DecodeInputs(*(getattr(inputs, field.name)[:rows] for field in fields(inputs)))
