"""What far states lose: one layer of 8 heads of 64 against full attention, float32, on the CPU.

    python -m benchmarks far

The queries are the last 256 of 8192; each sees the first page, its own and the one before, and the
two that it selects. The other 26 to 28 are seen as the far state says. ``diffuse`` are independent
normal numbers, ``peaked`` the same with queries three times as long, and in ``smooth`` a key is
mostly that of the token before it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.centroids import make_centroids
from longspan.worker.attention.cpu import CpuBackend
from longspan.worker.attention.layer_plan import View
from longspan.worker.attention.linear.favor import favor
from longspan.worker.attention.linear.feature_maps import FeatureMap, elu, exp, relu
from longspan.worker.attention.linear.hedgehog import Hedgehog
from longspan.worker.attention.linear.page_sums import make_page_sums
from longspan.worker.attention.policy import FULL, Far, Kind, LayerPolicy, ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.selectors import quest
from longspan.worker.attention.step_attention import StepAttention
from longspan.worker.attention.zones import Zones

HEADS, DIM, TOKENS = 8, 64, 8192
SCALE = DIM**-0.5
CPU = torch.device("cpu")
QUERIES = slice(TOKENS - PAGE_TOKENS, TOKENS)
POLICY = LayerPolicy(kind=Kind.HIERARCHICAL, prefix_pages=1, window_pages=1, selected_pages=2)
SMOOTH = 0.98
Row = dict[str, object]


class Layer:
    """A sequence of one kind in pages of its own, in their order."""

    def __init__(self, kind: str) -> None:
        numbers = torch.Generator().manual_seed(0)
        shape = (TOKENS, HEADS, DIM)
        self.query, keys, values = (torch.randn(shape, generator=numbers) for _ in "qkv")
        if kind == "smooth":
            keys, values = smoothed(keys), smoothed(values)
        if kind != "diffuse":
            self.query *= 3
        pages = (TOKENS // PAGE_TOKENS, PAGE_TOKENS, HEADS, DIM)
        self.keys, self.values = (
            x.view(pages).transpose(1, 2).contiguous() for x in (keys, values)
        )

    def attend(
        self,
        policy: LayerPolicy,
        *,
        centroid_tokens: int | None = None,
        maps: FeatureMap | None = None,
    ) -> Attended:
        """The queries' attention under a policy, each choosing its pages alone."""
        layer = LayerPages(self.keys, self.values, quest.bounds(self.keys))
        slots = torch.arange(len(self.keys))
        if centroid_tokens is not None:
            known = make_centroids(self.keys, self.values, tokens=centroid_tokens)
            known.write(slots, self.keys, self.values)
            layer = replace(layer, centroids=known)
        if maps is not None:
            sums = make_page_sums(maps, self.keys, self.values, scale=SCALE)
            sums.write(slots, slots - 1, self.keys, self.values)
            layer = replace(layer, page_sums=sums)
        rows = AttentionRows(
            np.array([QUERIES.start]),
            np.array([PAGE_TOKENS]),
            [np.arange(len(self.keys), dtype=np.int32)],
        )
        view = View(ModelPolicy("measured", (policy,)), Zones(QUERIES.start, QUERIES.start))
        step = StepAttention([CpuBackend()], [rows], [view], CPU)
        return step.attend(0, self.query[QUERIES], layer, scale=SCALE, window=None)


def smoothed(x: torch.Tensor) -> torch.Tensor:
    """Each token mostly the one before it, of the same variance."""
    fresh = (1 - SMOOTH**2) ** 0.5
    parts = [x[0]]
    for token in x[1:]:
        parts.append(SMOOTH * parts[-1] + fresh * token)
    return torch.stack(parts)


def linear_maps() -> dict[str, FeatureMap]:
    """None of them trained."""
    numbers = torch.Generator().manual_seed(1)
    return {
        "linear, elu": elu(),
        "linear, relu": relu(),
        "linear, exp": exp(),
        "linear, Hedgehog untrained": Hedgehog(HEADS, HEADS, DIM),
        "linear, FAVOR+ of 256": favor(DIM, 256, numbers),
    }


def rows_of(kind: str) -> list[Row]:
    """One row a far state."""
    layer = Layer(kind)
    full = layer.attend(FULL)
    found = {"none": layer.attend(POLICY)}
    centroid = replace(POLICY, far=Far.CENTROID)
    for tokens in (256, 64, 16):
        found[f"centroid of {tokens}"] = layer.attend(centroid, centroid_tokens=tokens)
    linear = replace(POLICY, far=Far.LINEAR)
    found |= {name: layer.attend(linear, maps=maps) for name, maps in linear_maps().items()}
    return [
        {
            "numbers": kind,
            "far state": name,
            "relative error": round(float((got.out - full.out).norm() / full.out.norm()), 3),
            "mass / full's": round(float((got.lse - full.lse).exp().mean()), 3),
        }
        for name, got in found.items()
    ]


@torch.inference_mode()
def main() -> list[Row]:
    """Run the measurements."""
    return [row for kind in ("diffuse", "peaked", "smooth") for row in rows_of(kind)]


if __name__ == "__main__":
    for row in main():
        print(row)
