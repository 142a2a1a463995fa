"""The recall model with linear attention in place of far keys: transformers' forward, no pages."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.recall.documents import Document
from benchmarks.recall.linear_state import FeatureMap, attend
from longspan.worker.attention.policy import LayerPolicy

ATTENTION = "recall-linear"
TILE = 512
"""Queries whose scores are written out at once."""


class LinearModel:
    """The decoder of a folder; what its layers without a window see is said call by call."""

    def __init__(self, folder: Path) -> None:
        from transformers import AttentionInterface, SmolLM3ForCausalLM

        AttentionInterface.register(ATTENTION, _attend)
        model: Any = SmolLM3ForCausalLM.from_pretrained(
            folder, attn_implementation=ATTENTION, dtype=torch.float32, local_files_only=True
        )
        self._model = model.eval()

    @torch.inference_mode()
    def right(
        self,
        document: Document,
        records: Sequence[int],
        near: LayerPolicy,
        far: FeatureMap | None,
    ) -> list[bool]:
        """Whether each record's answer is the likeliest, token by token: what greedy finds."""
        from transformers import DynamicCache

        read = DynamicCache()
        self._logits(document.tokens, read, near, far)
        return [
            self._answers(document, record, copy.deepcopy(read), near, far) for record in records
        ]

    def _answers(
        self, document: Document, record: int, read: Any, near: LayerPolicy, far: FeatureMap | None
    ) -> bool:
        answer = document.answer(record)
        tokens = np.concatenate([document.question(record), answer])
        found = self._logits(tokens, read, near, far)[-len(answer) - 1 : -1].argmax(-1)
        return bool((found.numpy() == answer).all())

    def _logits(
        self, tokens: Any, read: Any, near: LayerPolicy, far: FeatureMap | None
    ) -> torch.Tensor:
        logits: torch.Tensor = self._model(
            input_ids=torch.from_numpy(tokens)[None], past_key_values=read, near=near, far=far
        ).logits
        return logits[0]


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    near: LayerPolicy,
    far: FeatureMap | None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Behind the signature of transformers' ``AttentionInterface``; a batch of one."""
    assert attention_mask is None
    groups = query.shape[1] // key.shape[1]
    keys, values = (x[0].repeat_interleave(groups, 0) for x in (key, value))
    rows, tokens = query.shape[2], keys.shape[1]
    tiles = []
    for first in range(0, rows, TILE):
        tile = query[0, :, first : first + TILE]
        end = tokens - rows + first + tile.shape[1]
        if sliding_window is None:
            out = attend(tile, keys[:, :end], values[:, :end], near, far, scale=scaling)
        else:
            out = _windowed(tile, keys[:, :end], values[:, :end], sliding_window, scaling)
        tiles.append(out)
    return torch.cat(tiles, 1).transpose(0, 1)[None], None


def _windowed(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, window: int, scaling: float
) -> torch.Tensor:
    places = torch.arange(keys.shape[1])
    back = places[-query.shape[1] :, None] - places
    scores = (query @ keys.mT * scaling).masked_fill((back < 0) | (back >= window), float("-inf"))
    return scores.softmax(-1) @ values
