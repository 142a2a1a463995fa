"""Decode steps replayed as CUDA graphs: one launch a step instead of one a kernel."""

from __future__ import annotations

import sys
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


class Staging:
    """The inputs that graphs read, and memory of the host that they are sent from.

    The host's memory is pinned for a GPU: a copy from other memory waits for the device.

    Args:
        rows: most sequences of a step.
        blocks: most pages of one sequence.
        scratch_page: see ``DecodeGraphs``.
    """

    def __init__(self, rows: int, blocks: int, scratch_page: int, device: torch.device) -> None:
        padding = torch.tensor([0, 0, scratch_page, 0, 1])
        integers = padding.repeat(rows, 1)
        tables = torch.full((rows, blocks), scratch_page, dtype=torch.int32)
        self._padding = padding.numpy()
        self._sent: Any = None
        if device.type == "cuda":
            integers, tables = integers.pin_memory(), tables.pin_memory()
            self._sent = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._host = DecodeInputs(integers, tables)
        self._integers, self._tables = integers.numpy(), tables.numpy()
        # Cloned where the device is the host: a step must not see the next one's inputs.
        self._device = DecodeInputs(integers.to(device, copy=True), tables.to(device, copy=True))

    def on_device(self, rows: int, blocks: int) -> DecodeInputs:
        """Those of so many sequences of so many pages: the first of what was allocated once."""
        return self._device.first(rows, blocks)

    def send(self, inputs: DecodeInputs, rows: int) -> None:
        """Send inputs on the CPU, followed by padding up to ``rows``.

        Rows that only pad store a first token in the scratch page and attend to it alone.
        """
        used, pages = inputs.block_tables.shape
        assert pages <= self._tables.shape[1], "a sequence is longer than the context"
        if self._sent is not None:
            self._sent.synchronize()
        self._integers[:used] = inputs.integers.numpy()
        self._integers[used:rows] = self._padding
        # Behind a sequence's pages stay those of former ones: no key of it lies there.
        self._tables[:used, :pages] = inputs.block_tables.numpy()
        self._tables[used:rows] = self._padding[2]
        width = self._tables.shape[1]
        host, device = self._host.first(rows, width), self._device.first(rows, width)
        device.integers.copy_(host.integers, non_blocking=True)
        device.block_tables.copy_(host.block_tables, non_blocking=True)
        if self._sent is not None:
            self._sent.record(torch.cuda.current_stream(device.integers.device))


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
    ``LEAST_BLOCKS`` on, is captured when it is first needed, and run without a graph where that
    fails.

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
        self._capture = capture or CudaCapture()
        self._blocks = blocks
        self._staging = Staging(self._buckets[-1], blocks, scratch_page, device)
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
        self._staging.send(inputs, bucket)
        return self._step(bucket, blocks, policy)()[: inputs.rows]

    def _step(self, bucket: int, blocks: int, policy: ModelPolicy) -> Repeat:
        key = bucket, blocks, "" if policy.full else policy.name
        if key not in self._steps:
            step = partial(self._forward, self._staging.on_device(bucket, blocks), policy)
            try:
                self._steps[key] = self._capture(step, self._device)
            except RuntimeError as error:
                if policy.full:
                    raise
                reason = str(error).partition("\n")[0]
                what = f"{policy.name} for {bucket} rows of {blocks} pages"
                print(f"longspan-worker: no CUDA graph of {what}: {reason}", file=sys.stderr)
                self._steps[key] = step
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
            before = torch.cuda.current_stream(device)
            try:
                # Pages are moved by another thread meanwhile, which may wait and allocate.
                with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                    logits = step()
            except RuntimeError:
                # torch stays on the stream of a capture that failed.
                torch.cuda.set_stream(before)
                raise
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
    integers = np.empty((len(ids), 5), np.int64)
    integers[:, 0] = ids
    integers[:, 1] = rows.starts
    integers[:, 2] = pages
    integers[:, 3] = rows.starts % PAGE_TOKENS
    integers[:, 4] = rows.ends
    return DecodeInputs(torch.from_numpy(integers), torch.from_numpy(tables))
