"""What a window would lose in each layer and kv head, watched under full attention."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.policy import LayerPolicy
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.zones import Zones
from longspan.worker.fidelity.capture import sampled_scores, seen_mass
from longspan.worker.fidelity.dense import attended, stored
from longspan.worker.fidelity.key_sets import seen_keys, seen_pages
from longspan.worker.fidelity.observed import Look, Observer

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(slots=True, eq=False)
class HeadSums:
    """Sums over queries of one layer, by query head: float64 [heads].

    Attributes:
        lost: mass of full attention outside the window.
        squared_error: of a window's output against full attention's.
        squared_norm: of full attention's.
    """

    queries: int
    lost: Doubles
    squared_error: Doubles
    squared_norm: Doubles

    def add(self, lost: torch.Tensor, windowed: torch.Tensor, full: torch.Tensor) -> None:
        """Add some queries: [rows, heads], and [rows, heads, dv] twice."""
        self.queries += len(lost)
        self.lost += lost.double().sum(0).cpu().numpy()
        self.squared_error += (windowed - full).double().square().sum((0, 2)).cpu().numpy()
        self.squared_norm += full.double().square().sum((0, 2)).cpu().numpy()

    def by_kv_head(self, kv_heads: int) -> tuple[Doubles, Doubles]:
        """Mean lost mass and relative error of each kv head: those of its worst query head."""
        lost = self.lost / max(self.queries, 1)
        error = np.sqrt(self.squared_error / np.maximum(self.squared_norm, 1e-30))
        return lost.reshape(kv_heads, -1).max(1), error.reshape(kv_heads, -1).max(1)


class Losses:
    """Watches steps under full attention, and computes beside it what a window would give.

    Attributes:
        layers: by the layer's index; layers with a window of their own are left out.
    """

    def __init__(self, window: LayerPolicy) -> None:
        self._window = window
        self.layers: dict[int, HeadSums] = {}

    def observer(self, rows: AttentionRows, zones: Zones, sampled: Integers) -> Observer:
        """Takes one step of one chunk; ``sampled`` are the queries that are taken."""
        return _StepLosses(self, self._window, rows, zones, sampled)

    def sums(self, index: int, heads: int) -> HeadSums:
        """Of one layer so far."""
        if index not in self.layers:
            self.layers[index] = HeadSums(0, *(np.zeros(heads) for _ in range(3)))
        return self.layers[index]


@dataclass(frozen=True, slots=True, eq=False)
class _StepLosses:
    losses: Losses
    window: LayerPolicy
    rows: AttentionRows
    zones: Zones
    sampled: Integers

    def __call__(self, look: Look) -> None:
        if look.window is not None:
            return
        [table] = self.rows.block_tables
        found = sampled_scores(look, self.rows, self.sampled)
        shares = found.softmax(-1)
        pages = seen_pages(self.rows, self.window, self.zones, look.query, look.pages, self.sampled)
        seen = seen_keys(pages, shares.shape[-1], shares.shape[1], shares.device)
        # Scores are masked, not weights: what the window sees may have no weight left to scale up.
        windowed = found.masked_fill(~seen, float("-inf")).softmax(-1)
        values = stored(look.pages.values, table, int(self.rows.ends[0]))
        self.losses.sums(look.index, shares.shape[1]).add(
            1.0 - seen_mass(shares, seen), attended(windowed, values), attended(shares, values)
        )
