"""The encoder engine: packed texts in, unit vectors out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.encoding.admission import TextRules
from longspan.worker.encoding.attention import select_kernel
from longspan.worker.encoding.packing import PackedRow, TokenIds, pack, tile
from longspan.worker.encoding.scheduler import Plan

INT32_MAX = np.iinfo(np.int32).max
Vectors = npt.NDArray[np.float32]

CPU_STEP_TOKENS = 4096
"""Tokens of one step on a CPU: about half a second on two cores, so that a question need not
wait longer. Larger steps are not faster there."""

CPU_TILE_TOKENS = 1024
"""Tokens of one forward pass on a CPU: more would push activations out of its cache."""


class Encoder:
    """A BERT-type model that embeds texts by mean pooling.

    Sentence-BERT (Reimers and Gurevych, 2019): the vector of a text is the mean of its last
    hidden states, special tokens included, scaled to unit length.

    Attributes:
        rules: which texts it takes.
        device: where it computes.
        dtype: the number type of weights and activations.
    """

    def __init__(
        self, model: torch.nn.Module, *, specials: tuple[int, int], rules: TextRules
    ) -> None:
        weight = next(model.parameters())
        self.rules = rules
        self.device = weight.device
        self.dtype = weight.dtype
        self._model = model
        self._first, self._last = (np.array([token], np.uint32) for token in specials)
        self._tile_tokens = CPU_TILE_TOKENS if self.device.type == "cpu" else INT32_MAX
        self._kernel = select_kernel(self.device, self.dtype)

    def run(self, plan: Plan) -> list[bytes]:
        """Run one step; return a little-endian float32 row per text."""
        texts = [np.frombuffer(text.tokens, "<u4") for text in plan.texts]
        return [row.astype("<f4").tobytes() for row in self.encode(texts)]

    @torch.inference_mode()
    def encode(self, texts: Sequence[TokenIds]) -> Vectors:
        """Embed texts given as token ids without special tokens: [texts, dimension]."""
        whole = [np.concatenate((self._first, text, self._last)) for text in texts]
        tiles = tile([len(text) for text in whole], self._tile_tokens)
        vectors = [self._forward(pack(whole[part], self.device)) for part in tiles]
        return torch.cat(vectors).cpu().numpy()

    def step_tokens(self, budget_tokens: int) -> int:
        """The step size that suits the device, at most ``budget_tokens``."""
        return min(budget_tokens, CPU_STEP_TOKENS) if self.device.type == "cpu" else budget_tokens

    def _forward(self, row: PackedRow) -> torch.Tensor:
        hidden = self._model(
            row.ids, position_ids=row.positions, segments=row.segments, kernel=self._kernel
        ).last_hidden_state
        return pool(hidden[0], row)


def pool(hidden: torch.Tensor, row: PackedRow) -> torch.Tensor:
    """Mean of each text's hidden states ([tokens, dimension]), scaled to unit length, float32."""
    lengths = row.segments.offsets.diff().long()
    means = torch.segment_reduce(hidden.float(), "mean", lengths=lengths, axis=0)
    return torch.nn.functional.normalize(means, dim=-1)
