"""Linear layers with 16-bit weights on a CPU that has no instructions for them.

torch emulates such products one conversion at a time. Here a weight is converted once a call,
and the product runs in float32: the same numbers, rounded once.
"""

from __future__ import annotations

import torch
from torch.nn.functional import linear

UPCAST_ROWS = 16
"""From so many rows on, converting the weight costs less than it saves."""

TILE_NUMBERS = 1 << 22
"""Weights converted at once: 16 MiB of float32 stay near the cores."""


class UpcastLinear(torch.nn.Linear):
    """``torch.nn.Linear`` for 16-bit weights; [.., in] -> [.., out]."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """See ``torch.nn.Linear``."""
        rows = input.numel() // self.in_features
        if rows == 1:
            return self._one(input)
        if rows < UPCAST_ROWS:
            return linear(input, self.weight, self.bias)
        return self._many(input)

    def _one(self, input: torch.Tensor) -> torch.Tensor:
        """A matrix-vector product reads the weight once and is as fast as memory."""
        out = torch.mv(self.weight, input.reshape(-1))
        if self.bias is not None:
            out = out + self.bias
        return out.view(*input.shape[:-1], self.out_features)

    def _many(self, input: torch.Tensor) -> torch.Tensor:
        wide = input.float()
        out = input.new_empty(*input.shape[:-1], self.out_features)
        tile = max(1, TILE_NUMBERS // self.in_features)
        for start in range(0, self.out_features, tile):
            part = slice(start, start + tile)
            bias = None if self.bias is None else self.bias[part].float()
            out[..., part] = linear(wide, self.weight[part].float(), bias)
        return out


def upcast_linears(model: torch.nn.Module) -> None:
    """Make every plain linear layer with 16-bit weights compute in float32."""
    for module in model.modules():
        if type(module) is torch.nn.Linear and module.weight.itemsize == 2:
            module.__class__ = UpcastLinear
