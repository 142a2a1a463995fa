"""Decode on a CPU: one query a sequence, page by page, all sequences together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.cpu_kernel import flash
from longspan.worker.attention.page_entries import PageEntries, page_entries, runs
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages


@dataclass(frozen=True, slots=True, eq=False)
class PageRun:
    """Pages read by one kernel call.

    Attributes:
        pages: a slice of the pool, or int64 [entries] where they are not neighbours.
        readers: int64 [entries, readers], rows of the query.
        unseen: 0 or -inf, [entries, 1, 1, PAGE_TOKENS]; None where all keys are seen.
    """

    pages: slice | torch.Tensor
    readers: torch.Tensor
    unseen: torch.Tensor | None


@dataclass(frozen=True, slots=True, eq=False)
class DecodePlan:
    """The runs of one window, and whose they are.

    Attributes:
        foreign: 0 or -inf, [rows, results]: which partial results belong to which row; None
            where there is one row.
    """

    runs: Sequence[PageRun]
    foreign: torch.Tensor | None


class DecodeRows:
    """The decode rows of a step; a plan for each window that some layer has.

    Args:
        ends: int64 [rows], keys of each row.
        tables: their block tables.
    """

    def __init__(
        self, ends: npt.NDArray[np.int64], tables: Sequence[npt.NDArray[np.int32]]
    ) -> None:
        self._ends = ends
        self._tables = tables
        self._plans: dict[int | None, DecodePlan] = {}

    def plan(self, window: int | None, dtype: torch.dtype) -> DecodePlan:
        """The runs for this window; the layers that share it share them."""
        if window is not None and window >= self._ends.max():
            window = None
        if window not in self._plans:
            self._plans[window] = self._make(window, dtype)
        return self._plans[window]

    def _make(self, window: int | None, dtype: torch.dtype) -> DecodePlan:
        parts = [
            run for group in page_entries(self._ends, self._tables, window) for run in runs(group)
        ]
        page_runs = [_page_run(part, dtype) for part in parts]
        if len(self._ends) == 1:
            return DecodePlan(page_runs, None)
        owners = torch.from_numpy(np.concatenate([part.readers.ravel() for part in parts]))
        own = owners[None] == torch.arange(len(self._ends))[:, None]
        foreign = torch.zeros(own.shape).masked_fill_(~own, float("-inf"))
        return DecodePlan(page_runs, foreign)


def decode(
    query: torch.Tensor, layer: LayerPages, rows: DecodeRows, *, scale: float, window: int | None
) -> Attended:
    """Attend from ``query`` [rows, heads, d]; see ``Backend.attend``."""
    plan = rows.plan(window, query.dtype)
    if len(query) == 1 and len(plan.runs) == 1:
        return _one_row(query, layer, plan.runs[0], scale)
    heads, kv_heads = query.shape[1], layer.keys.shape[1]
    grouped = query.view(len(query), kv_heads, heads // kv_heads, -1)
    results = [_attend_run(grouped, layer, run, scale) for run in plan.runs]
    out, lse = results[0]
    if len(results) > 1:
        out = torch.cat([out for out, _ in results], 1)
        lse = torch.cat([lse for _, lse in results], 1)
    scores = lse[:, None] if plan.foreign is None else lse[:, None] + plan.foreign
    # By hand: torch.logsumexp costs more than all of this on tensors so small, and every row
    # has a finite score.
    largest = scores.amax(-1, keepdim=True)
    weights = (scores - largest).exp_()
    mass = weights.sum(-1, keepdim=True)
    merged = torch.bmm(weights.div_(mass), out.float())
    total = mass.log_().add_(largest)
    return Attended(merged.transpose(0, 1).to(query.dtype), total[..., 0].transpose(0, 1))


def _one_row(query: torch.Tensor, layer: LayerPages, run: PageRun, scale: float) -> Attended:
    """``decode`` of one row whose pages are one run."""
    entries, kv_heads = len(run.readers), layer.keys.shape[1]
    heads, dim, dv = query.shape[1], query.shape[2], layer.values.shape[-1]
    keys = layer.keys[run.pages]
    values = keys if layer.latent else layer.values[run.pages]
    grouped = query.view(1, kv_heads, -1, dim).expand(entries, -1, -1, -1)
    out, lse = flash(grouped, keys, values, scale=scale, mask=run.unseen)
    lse = lse.reshape(entries, heads)
    out = out.reshape(entries, heads, -1)[..., :dv]
    if entries == 1:
        return Attended(out, lse)
    weights = torch.softmax(lse, 0)
    merged = torch.einsum("eh,ehd->hd", weights, out.float())
    return Attended(merged[None].to(query.dtype), torch.logsumexp(lse, 0, keepdim=True))


def _attend_run(
    query: torch.Tensor, layer: LayerPages, run: PageRun, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Partial results of a run: out [heads, entries * readers, dv] and lse without the last axis.

    The readers of a page become rows of one product, together with the heads that share its
    keys.
    """
    entries, readers = run.readers.shape
    _, kv_heads, group, dim = query.shape
    if len(query) == 1:
        rows = query.expand(entries, kv_heads, group, dim)
    else:
        rows = query[run.readers].transpose(1, 2).reshape(entries, kv_heads, readers * group, dim)
    keys = layer.keys[run.pages]
    values = keys if layer.latent else layer.values[run.pages]
    out, lse = flash(rows, keys, values, scale=scale, mask=run.unseen)
    out = out.view(entries, kv_heads, readers, group, -1).permute(1, 3, 0, 2, 4)
    lse = lse.view(entries, kv_heads, readers, group).permute(1, 3, 0, 2)
    heads = kv_heads * group
    out = out.reshape(heads, entries * readers, -1)[..., : layer.values.shape[-1]]
    return out, lse.reshape(heads, entries * readers)


def _page_run(entries: PageEntries, dtype: torch.dtype) -> PageRun:
    pages: slice | torch.Tensor = torch.from_numpy(entries.pages)
    if entries.consecutive:
        pages = slice(int(entries.pages[0]), int(entries.pages[-1]) + 1)
    unseen = None
    if entries.partial:
        key = torch.arange(PAGE_TOKENS)
        low, high = (torch.from_numpy(x)[:, None] for x in (entries.low, entries.high))
        unseen = torch.zeros(len(entries.pages), PAGE_TOKENS, dtype=dtype)
        unseen.masked_fill_((key < low) | (key >= high), float("-inf"))
        unseen = unseen[:, None, None]
    return PageRun(pages, torch.from_numpy(entries.readers), unseen)
