"""Products of a fused decoder's weights, whatever they are computed over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch


class Product(Protocol):
    """One weight, or several below each other.

    Attributes:
        sizes: outputs of each layer.
    """

    sizes: list[int]

    def product(self, input: torch.Tensor) -> torch.Tensor:
        """[rows, in] -> [rows, all outputs]."""
        ...

    def add_product(self, hidden: torch.Tensor, input: torch.Tensor) -> None:
        """Add the product of ``input``, [rows, in], to the first rows of ``hidden``, in place."""
        ...

    def padded_rows(self, rows: int) -> int:
        """As how many rows so many are multiplied most quickly."""
        ...


class LayerProducts(NamedTuple):
    """Those of one decoder layer."""

    qkv: Product
    o: Product
    gate_up: Product
    down: Product


class DecoderProducts(NamedTuple):
    """Those of a whole decoder."""

    layers: Sequence[LayerProducts]
    head: Product
