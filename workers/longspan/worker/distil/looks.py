"""What the layers of a decoder attended to in one sequence, under full attention."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch

from longspan.worker.attention.policy import FULL_MODEL
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.zones import NO_ZONES
from longspan.worker.fidelity.dense import stored
from longspan.worker.fidelity.observed import Look
from longspan.worker.fidelity.reading import Reading, Tokens, chunks
from longspan.worker.fidelity.session import Session


@dataclass(frozen=True, slots=True, eq=False)
class LayerLook:
    """One layer's part.

    Attributes:
        query: float32 [n, heads, d].
        keys: float32 [n, kv_heads, d].
        values: float32 [n, kv_heads, dv].
        scale: of its scores.
    """

    query: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    scale: float


def looks(session: Session, tokens: Tokens, layers: Collection[int]) -> dict[int, LayerLook]:
    """Read whole pages of tokens, and take down what these layers did.

    All of it is held in float32.
    """
    queries: dict[int, list[torch.Tensor]] = {index: [] for index in layers}
    last: dict[int, Look] = {}

    def watch(look: Look) -> None:
        if look.index in queries:
            queries[look.index].append(look.query.float())
            last[look.index] = look

    reading = Reading(session, FULL_MODEL, NO_ZONES)
    for start, end in chunks(0, len(tokens), session.step_tokens):
        reading.step(start, tokens[start:end], observer=watch)
    return {index: _look(queries[index], last[index], len(tokens)) for index in layers}


def _look(queries: list[torch.Tensor], last: Look, tokens: int) -> LayerLook:
    """Copies, because the originals are of inference mode, which knows no gradients."""
    table = np.arange(-(-tokens // PAGE_TOKENS), dtype=np.int32)
    keys, values = (
        stored(pages, table, tokens).transpose(0, 1).clone()
        for pages in (last.pages.keys, last.pages.values)
    )
    return LayerLook(torch.cat(queries).clone(), keys, values, last.scale)
