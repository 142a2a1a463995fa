"""One layer's sequence as something to learn from: what is exact is computed once.

The queries of a page choose pages together, by the scores themselves, and see what the policy
shows them exactly; the output of full attention is what the far state has to make of the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch

from longspan.worker.attention.base import Attended
from longspan.worker.attention.linear.feature_maps import FeatureMap
from longspan.worker.attention.linear.state import normalised
from longspan.worker.attention.merge import merge
from longspan.worker.attention.policy import CENTROID_TOKENS, LayerPolicy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.distil.looks import LayerLook

QUERIES = 32
"""Of a page, evenly apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """Blocks of queries, each of one page, whose policy leaves pages out.

    Attributes:
        look: what the layer saw, whole pages.
        query: [blocks, QUERIES, heads, d].
        near: exact attention over what the policy shows; [blocks, QUERIES, heads, ..].
        target: full attention's output, shaped as the near one.
        far: float32 [kv_heads, blocks, pages], 1 for the pages that are left out.
        far_lse: what exact attention over those weighs, [blocks, QUERIES, heads].
    """

    look: LayerLook
    query: torch.Tensor
    near: Attended
    target: torch.Tensor
    far: torch.Tensor
    far_lse: torch.Tensor

    def attended(self, maps: FeatureMap) -> Attended:
        """What the policy's queries get, with linear attention for what is left out."""
        return merge([self.near, self.linear(maps)])

    def with_centroids(self) -> Attended:
        """What they get with centroids for what is left out, which needs no maps."""
        look, (kv_heads, blocks, _) = self.look, self.far.shape
        keys, values = (
            x.view(-1, CENTROID_TOKENS, *x.shape[1:]).mean(1) for x in (look.keys, look.values)
        )
        query = self.query.view(blocks, QUERIES, kv_heads, -1, self.query.shape[-1]) * look.scale
        scores = torch.einsum("bnkgd,ckd->bkgnc", query, keys) + log(CENTROID_TOKENS)
        hidden = self.far.repeat_interleave(PAGE_TOKENS // CENTROID_TOKENS, 2).transpose(0, 1) == 0
        scores = scores.masked_fill(hidden[:, :, None, None], float("-inf"))
        parts = [Attended(*_exact(block, values)) for block in scores]
        out, lse = (torch.stack(found) for found in zip(*parts, strict=True))
        return merge([self.near, Attended(out, lse)])

    def linear(self, maps: FeatureMap) -> Attended:
        """Linear attention over what is left out."""
        look, scale = self.look, self.look.scale**0.5
        kv_heads, blocks, pages = self.far.shape
        keys = maps.key(look.keys * scale).view(pages, PAGE_TOKENS, kv_heads, -1)
        counted = torch.nn.functional.pad(look.values, (0, 1), value=1.0)
        counted = counted.view(pages, PAGE_TOKENS, kv_heads, -1)
        sums = torch.einsum("ptkf,ptkv->kpfv", keys, counted)
        states = torch.einsum("kbp,kpfv->kbfv", self.far, sums)
        features = maps.query(self.query.flatten(0, 1) * scale)
        grouped = features.view(blocks, QUERIES, kv_heads, -1, features.shape[-1])
        seen = torch.einsum("bnkgf,kbfv->bnkgv", grouped, states).flatten(2, 3)
        return normalised(seen[..., :-1], seen[..., -1])

    def error(self, found: torch.Tensor) -> torch.Tensor:
        """Squared distance from full attention's output, as a part of its square."""
        return (found - self.target).square().sum() / self.target.square().sum()


def first_page(policy: LayerPolicy) -> int:
    """The first page whose queries leave some page out."""
    return policy.prefix_pages + policy.window_pages + policy.selected_pages + 1


def lesson(look: LayerLook, policy: LayerPolicy) -> Lesson:
    """What a sequence teaches; it has at least ``first_page`` and one more whole pages."""
    pages = len(look.keys) // PAGE_TOKENS
    blocks = [_block(look, policy, page, pages) for page in range(first_page(policy), pages)]
    queries, outs, lses, targets, fars, far_lses = zip(*blocks, strict=True)
    return Lesson(
        look=look,
        query=torch.stack(queries),
        near=Attended(torch.stack(outs), torch.stack(lses)),
        target=torch.stack(targets),
        far=torch.stack(fars, 1),
        far_lse=torch.stack(far_lses),
    )


def _block(look: LayerLook, policy: LayerPolicy, page: int, pages: int) -> tuple[torch.Tensor, ...]:
    """Queries, near output and lse, target, which of all pages are far, and their lse."""
    device, step = look.keys.device, PAGE_TOKENS // QUERIES
    start = page * PAGE_TOKENS
    places = torch.arange(start + step - 1, start + PAGE_TOKENS, step, device=device)
    end = start + PAGE_TOKENS
    keys, values = look.keys[:end], look.values[:end]
    query, kv_heads = look.query[places], keys.shape[1]
    grouped = query.view(QUERIES, kv_heads, -1, query.shape[-1]) * look.scale
    scores = torch.einsum("nkgd,mkd->kgnm", grouped, keys)
    scores = scores.masked_fill(places[:, None] < torch.arange(end, device=device), float("-inf"))
    candidates = policy.candidates(page)
    best = scores.amax((1, 2)).view(kv_heads, -1, PAGE_TOKENS).amax(-1)
    best = best[:, candidates.start : candidates.stop]
    chosen = best.topk(policy.selected_pages).indices + candidates.start
    far = torch.zeros(kv_heads, pages, device=device)
    far[:, candidates.start : candidates.stop] = 1.0
    far.scatter_(1, chosen, 0.0)
    hidden = far[:, : page + 1].repeat_interleave(PAGE_TOKENS, 1)[:, None, None].bool()
    target, _ = _exact(scores, values)
    out, lse = _exact(scores.masked_fill(hidden, float("-inf")), values)
    _, far_lse = _exact(scores.masked_fill(~hidden, float("-inf")), values)
    return query, out, lse, target, far, far_lse


def _exact(scores: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention: [n, heads, dv] and [n, heads] of scores [kv_heads, group, n, m]."""
    lse = scores.logsumexp(-1)
    out = torch.einsum("kgnm,mkv->nkgv", (scores - lse[..., None]).exp(), values)
    return out.flatten(1, 2), lse.permute(2, 0, 1).flatten(1, 2)
