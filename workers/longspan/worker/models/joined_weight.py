"""Linear layers on a GPU: those that share their input are one weight, and one product.

The layers themselves stay what they are, and look at their parts of it: nothing lies in memory
twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import linear

from longspan.worker.models.product import DecoderProducts, LayerProducts


class JoinedWeight:
    """One plain weight, or several below each other.

    Args:
        linears: theirs; if there are several, their parameters become views of one tensor.

    Attributes:
        sizes: outputs of each layer.
    """

    def __init__(self, linears: Sequence[torch.nn.Linear]) -> None:
        self.sizes = [layer.out_features for layer in linears]
        self._weight = _joined(linears, "weight")
        self._bias = None if linears[0].bias is None else _joined(linears, "bias")
        self._turned = self._weight.t()

    def product(self, input: torch.Tensor) -> torch.Tensor:
        """[rows, in] -> [rows, all outputs]."""
        return linear(input, self._weight, self._bias)

    def add_product(self, hidden: torch.Tensor, input: torch.Tensor) -> None:
        """Add the product of ``input``, [rows, in], to ``hidden``, in place; rounded once."""
        if self._bias is None:
            hidden.addmm_(input, self._turned)
        else:
            hidden.add_(self.product(input))

    def padded_rows(self, rows: int) -> int:
        """Rows are not padded."""
        return rows


def can_join(model: Any) -> bool:
    """True for a decoder of the Llama family whose linear layers are plain ones."""
    groups = [group for layer in model.model.layers for group in _groups(layer)]
    return all(_alike(group) for group in [*groups, [model.lm_head]])


@torch.no_grad()
def join_weights(model: Any) -> DecoderProducts:
    """Join what ``can_join``, group by group: at most one is in memory twice."""
    layers = []
    for layer in model.model.layers:
        layers.append(LayerProducts(*(JoinedWeight(group) for group in _groups(layer))))
        if model.device.type == "cuda":
            # Blocks of single weights are too small for joined ones: as a cache they would stay.
            torch.cuda.empty_cache()
    return DecoderProducts(layers, JoinedWeight([model.lm_head]))


def _groups(layer: Any) -> list[list[Any]]:
    """A layer's linear layers, in the order of ``LayerProducts``."""
    attention, mlp = layer.self_attn, layer.mlp
    return [
        [attention.q_proj, attention.k_proj, attention.v_proj],
        [attention.o_proj],
        [mlp.gate_proj, mlp.up_proj],
        [mlp.down_proj],
    ]


def _alike(linears: Sequence[Any]) -> bool:
    if any(type(layer) is not torch.nn.Linear for layer in linears):
        return False
    return len({(layer.in_features, layer.bias is None) for layer in linears}) == 1


def _joined(linears: Sequence[torch.nn.Linear], name: str) -> torch.Tensor:
    """Their parameters of this name below each other; a single one is not copied."""
    parts: list[torch.Tensor] = [getattr(layer, name).detach() for layer in linears]
    if len(parts) == 1:
        return parts[0]
    whole = torch.cat(parts)
    sizes = [len(part) for part in parts]
    for layer, part in zip(linears, torch.split(whole, sizes), strict=True):
        setattr(layer, name, torch.nn.Parameter(part, requires_grad=False))
    return whole
