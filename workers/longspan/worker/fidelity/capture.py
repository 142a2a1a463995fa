"""What a policy leaves of full attention: the mass that it sees, and the error of its output."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.base import Backend
from longspan.worker.attention.layer_plan import View
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.fidelity.dense import scores, stored
from longspan.worker.fidelity.key_sets import seen_keys, seen_pages
from longspan.worker.fidelity.observed import Look, Observer

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
LOW = 5
"""Percentile of the mass that tells of the queries which a policy serves badly."""


@dataclass(slots=True)
class LayerCapture:
    """Sums over the steps that were watched.

    Attributes:
        masses: float32 [rows, heads], one of each step: the share of full attention's softmax
            mass that falls on keys that the policy sees.
        squared_error: of the layer's output against full attention's over the same keys.
        squared_norm: of full attention's output.
    """

    masses: list[Floats] = field(default_factory=list)
    squared_error: float = 0.0
    squared_norm: float = 0.0

    @property
    def all_masses(self) -> Floats:
        """[rows, heads] of all steps."""
        return np.concatenate(self.masses)

    @property
    def error(self) -> float:
        """Relative error of the output: 0 where the policy computes what full attention does."""
        return float(np.sqrt(self.squared_error / max(self.squared_norm, 1e-30)))


class Captures:
    """Watches steps of one sequence, and keeps what they show by layer.

    Both are taken on the same inputs: the queries and keys that the policy itself has led to.

    Args:
        backend: computes full attention to compare with.
        layers: of the model.
    """

    def __init__(self, backend: Backend, layers: int) -> None:
        self._backend = backend
        self.layers = [LayerCapture() for _ in range(layers)]

    def observer(self, rows: AttentionRows, view: View, sampled: Integers) -> Observer:
        """Takes one step of one chunk; ``sampled`` are the queries whose mass is taken."""
        return _StepCapture(self._backend, self.layers, rows, view, sampled)

    @property
    def mass(self) -> tuple[float, float]:
        """Mean and low percentile over queries, heads and layers."""
        masses = np.concatenate([layer.all_masses.ravel() for layer in self.layers])
        return float(masses.mean()), float(np.percentile(masses, LOW))

    @property
    def error(self) -> float:
        """Mean over the layers."""
        return float(np.mean([layer.error for layer in self.layers]))


class _StepCapture:
    def __init__(
        self,
        backend: Backend,
        layers: list[LayerCapture],
        rows: AttentionRows,
        view: View,
        sampled: Integers,
    ) -> None:
        self._backend = backend
        self._layers = layers
        self._rows = rows
        self._view = view
        self._sampled = sampled
        self._plan: Any = None

    def __call__(self, look: Look) -> None:
        capture = self._layers[look.index]
        if self._plan is None:
            self._plan = self._backend.plan(self._rows, look.query.device)
        full = self._backend.attend(
            look.query, look.pages, self._plan, scale=look.scale, window=look.window
        ).out.double()
        capture.squared_error += float((look.out.double() - full).square().sum())
        capture.squared_norm += float(full.square().sum())
        capture.masses.append(self._mass(look))

    def _mass(self, look: Look) -> Floats:
        shares = sampled_scores(look, self._rows, self._sampled).softmax(-1)
        seen = self._seen(look, shares)
        return seen_mass(shares, seen).cpu().numpy()

    def _seen(self, look: Look, shares: torch.Tensor) -> torch.Tensor:
        if look.window is not None:  # the layer's own window is what full attention is there
            return torch.ones_like(shares, dtype=torch.bool)
        policy, zones = self._view.policy.layer(look.index), self._view.zones
        pages = seen_pages(self._rows, policy, zones, look.query, look.pages, self._sampled)
        return seen_keys(pages, shares.shape[-1], shares.shape[1], shares.device)


def sampled_scores(look: Look, rows: AttentionRows, sampled: Integers) -> torch.Tensor:
    """Full attention's scores of some queries of the one chunk in ``rows``, from the keys in
    the pages: float32 [sampled, heads, keys]."""
    [table] = rows.block_tables
    keys = stored(look.pages.keys, table, int(rows.ends[0]))
    query = look.query[torch.from_numpy(sampled).to(look.query.device)]
    positions = rows.starts[0] + sampled
    return scores(query, keys, positions, scale=look.scale, window=look.window)


def seen_mass(shares: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """The part of the weights that falls on seen keys: [sampled, heads]; 1 where all are seen.

    Divided by the sum of all, taken in the same order, so that rounding cannot make it less.
    """
    return shares.masked_fill(~seen, 0.0).sum(-1) / shares.sum(-1)
