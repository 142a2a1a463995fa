"""One layer's attention as the engine computes it, over a random sequence, and its clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from longspan.worker.attention.base import Backend
from longspan.worker.attention.centroids import make_centroids
from longspan.worker.attention.decode_attention import DecodeAttention, can_decode
from longspan.worker.attention.folded import FoldedBackend
from longspan.worker.attention.layer_plan import View
from longspan.worker.attention.policy import Far, LayerPolicy, ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.selectors import quest
from longspan.worker.attention.step_attention import step_attention
from longspan.worker.attention.zones import NO_ZONES, Zones

SLOW_S = 0.5
"""What takes longer is timed once."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """A layer's sizes, and where and in what numbers it is computed."""

    heads: int
    kv_heads: int
    dim: int
    device: torch.device
    dtype: torch.dtype

    def key_bytes(self) -> int:
        """Of one key and its value, over all kv heads."""
        return 2 * self.kv_heads * self.dim * self.dtype.itemsize

    def random(self, *shape: int) -> torch.Tensor:
        """Normal numbers."""
        return torch.randn(shape, device=self.device, dtype=self.dtype)

    def operations(self, pairs: float) -> float:
        """Of so many pairs of a query and a key, over all heads: two products."""
        return 4.0 * self.heads * self.dim * pairs


@dataclass(frozen=True, slots=True)
class Timed:
    """Seconds of a step in one layer.

    Attributes:
        layer: when it has been planned, as in all layers but the first.
        plan: what the first layer takes more.
    """

    layer: float
    plan: float


class RandomSequences:
    """Sequences of one length, side by side in one pool.

    Args:
        chunk: most tokens of one step.
    """

    def __init__(self, geometry: Geometry, tokens: int, chunk: int, *, batch: int = 1) -> None:
        self.geometry, self.tokens, self._batch = geometry, tokens, batch
        pages = -(-tokens // PAGE_TOKENS)
        self._tables = np.arange(batch * pages, dtype=np.int32).reshape(batch, pages)
        shape = (batch * pages, geometry.kv_heads, PAGE_TOKENS, geometry.dim)
        torch.manual_seed(0)
        keys, values = geometry.random(*shape), geometry.random(*shape)
        centroids = make_centroids(keys, values)
        centroids.write(torch.arange(len(keys), device=geometry.device), keys, values)
        bounds = quest.bounds(keys).contiguous()
        self.layer = LayerPages(keys, values, bounds, centroids)
        width = max(chunk, batch), geometry.dim
        self._query = geometry.random(geometry.heads, *width)
        self._new = geometry.random(geometry.kv_heads, *width)

    def query(self, tokens: int) -> torch.Tensor:
        """[tokens, heads, d], as the engine hands it over: heads outside tokens in memory."""
        return self._query[:, :tokens].transpose(0, 1)

    def rows(self, start: int, end: int) -> AttentionRows:
        """The same chunk of every sequence."""
        tables = list(self._tables[:, : -(-end // PAGE_TOKENS)])
        starts = np.full(self._batch, start)
        return AttentionRows(starts, np.full(self._batch, end - start), tables)

    def step(
        self, backend: Backend, policy: LayerPolicy, start: int, end: int
    ) -> Callable[[], object]:
        """What one layer does in one step, but for its matrix products; planned when first called.

        One token is the answer's, behind all others; more are a document's.
        """
        device, rows = self.geometry.device, self.rows(start, end)
        zones = Zones(start, start) if end - start == 1 else NO_ZONES
        view = View(ModelPolicy("measured", (policy,)), zones)
        attention = step_attention([backend], [rows], [view] * self._batch, device)
        slots = rows.slots(device, bounds=policy.selects, summaries=policy.far is not Far.NONE)
        query, new = self.query(rows.tokens), self._new[:, : rows.tokens]
        scale = self.geometry.dim**-0.5

        def layer() -> object:
            self.layer.write(slots, new, new)
            return attention.attend(0, query, self.layer, scale=scale, window=None)

        return layer

    def decode_step(
        self, backend: Backend, policy: LayerPolicy, at: int
    ) -> Callable[[], object] | None:
        """The next token's layer, planned on the device; None for what the engine has no graphs."""
        seen = ModelPolicy("measured", (policy,))
        if not isinstance(backend, FoldedBackend) or not can_decode(seen):
            return None
        device, rows = self.geometry.device, self.rows(at, at + 1)
        slots = rows.slots(device, bounds=False, summaries=False)
        tables = torch.from_numpy(np.stack(rows.block_tables)).to(device)
        keys = torch.full((self._batch,), at + 1, dtype=torch.int32, device=device)
        query, new = self.query(rows.tokens), self._new[:, : rows.tokens]
        scale = self.geometry.dim**-0.5

        def layer() -> object:
            self.layer.write(slots, new, new)
            attention = DecodeAttention(backend, seen, tables, keys)
            return attention.attend(0, query, self.layer, scale=scale, window=None)

        return layer


def timed_step(
    make: Callable[[], Callable[[], object]], device: torch.device, *, rounds: int, layers: int
) -> Timed:
    """Time a step that ``make`` prepares; ``layers`` are sent to the device in a row.

    A step before warms up: kernels are compiled, and memory is taken.
    """
    warm = timed(make(), device)
    if warm >= SLOW_S:
        warm = timed(make(), device)
    started = time.perf_counter()
    step = make()
    planned = time.perf_counter() - started
    first = planned + timed(step, device)
    if warm >= SLOW_S:
        return Timed(first, 0.0)

    def several() -> None:
        for _ in range(layers):
            step()

    layer = median(timed(several, device) / layers for _ in range(rounds))
    return Timed(layer, max(first - layer, 0.0))


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has done it."""
    synchronise(device)
    started = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed_graph(work: Callable[[], object], device: torch.device, *, rounds: int) -> float | None:
    """Seconds of the same as a CUDA graph; None where it cannot be captured."""
    if device.type != "cuda":
        return None
    repeats = 20
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            work()
    except RuntimeError:
        synchronise(device)
        return None

    def replay() -> None:
        for _ in range(repeats):
            graph.replay()

    replay()
    return median(timed(replay, device) / repeats for _ in range(rounds))
