"""Linear layers on a CPU whose weights lie as oneDNN reads them.

A plain weight is rearranged in every call, which costs more than the product where there are few
rows: on 2 cores of an AMD EPYC (Zen 4) a float32 product of one row runs 2.5 times as fast over a
packed one and 16 rows two to three times as fast, a bfloat16 one 1.5 to 2 times.
"""

from __future__ import annotations

from typing import Any

import torch

ROWS_HINT = 16
"""Rows that the arrangement is chosen for; any number may follow."""

LEAST_ROWS = 4
"""oneDNN reads a weight faster for four rows than for one to three."""

TRIED = (48, 33)
"""Sizes of the layer that shows whether this machine can."""

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Between the packed product and the plain one, of numbers around 1."""


class PackedLinear(torch.nn.Module):
    """``torch.nn.Linear`` for inference; [.., in] -> [.., out].

    It keeps no plain weight; a model that reads ``weight`` itself must keep its plain layer.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        self._packed: Any = torch.ops.mkldnn._reorder_linear_weight(
            linear.weight.detach(), ROWS_HINT
        )

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """See ``torch.nn.Linear``."""
        rows = input.numel() // self.in_features
        if rows == 0 or rows >= LEAST_ROWS:
            return self._product(input)
        padded = input.new_zeros(LEAST_ROWS, self.in_features)
        padded[:rows] = input.reshape(rows, -1)
        return self._product(padded)[:rows].view(*input.shape[:-1], self.out_features)

    def _product(self, input: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            input, self._packed, self.bias, "none", [], ""
        )
        return product


def pack_linears(model: torch.nn.Module, *, keep: tuple[str, ...] = ()) -> bool:
    """Pack every plain linear layer; those whose name is in ``keep`` stay as they are.

    Returns:
        False where this machine's torch cannot; nothing was changed then.
    """
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if type(child) is torch.nn.Linear and name not in keep
    ]
    if not all(can_pack(dtype) for dtype in {child.weight.dtype for _, _, child in found}):
        return False
    for parent, name, child in found:
        setattr(parent, name, PackedLinear(child))
    return bool(found)


@torch.inference_mode()
def can_pack(dtype: torch.dtype) -> bool:
    """True where a packed product of this type works and is right."""
    tolerance = TOLERANCE.get(dtype)
    if tolerance is None:
        return False
    plain = torch.nn.Linear(*TRIED, dtype=dtype)
    input = torch.linspace(-1, 1, 3 * TRIED[0]).view(1, 3, -1).to(dtype)
    try:
        packed = PackedLinear(plain)(input)
    except (RuntimeError, AttributeError):  # another build of torch, or another processor
        return False
    return torch.allclose(packed, plain(input), atol=tolerance, rtol=tolerance)
