"""Linear layers on a CPU whose weights lie as oneDNN reads them.

A plain weight is rearranged in every call, which costs more than the product where there are few
rows: on 2 cores of an AMD EPYC (Zen 4) a float32 product of one row runs 2.5 times as fast over a
packed one and 16 rows two to three times as fast, a bfloat16 one 1.5 to 2 times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from longspan.worker.models.few_rows import ROWS_HINT, FewRows
from longspan.worker.models.product import DecoderProducts, LayerProducts

ROWS_STEP = 64
"""oneDNN makes and keeps a kernel for every number of rows that it meets; so it meets few."""

TRIED = (48, 33)
"""Sizes of the layer that shows whether this machine can."""

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""Between the packed product and the plain one, of numbers around 1."""


SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Layers that a decoder applies to one input, one after the other."""


class PackedWeight:
    """One weight, or several below each other, as oneDNN reads it.

    Args:
        linears: theirs.
        few: how few rows are multiplied.

    Attributes:
        sizes: outputs of each layer.
    """

    def __init__(self, linears: Sequence[torch.nn.Linear], few: FewRows) -> None:
        weight = _joined([linear.weight for linear in linears])
        biases = [linear.bias for linear in linears if linear.bias is not None]
        self._bias = _joined(biases) if biases else None
        self._packed: Any = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS_HINT)
        # Found once: looking an operator up costs as much as a small one.
        self._multiply: Any = torch.ops.mkldnn._linear_pointwise.default
        self._in_features = weight.shape[1]
        self._least = few.least
        self._few = weight.new_zeros(few.least, self._in_features)
        self._plain = weight if few.plain_row else None
        self.sizes = [linear.out_features for linear in linears]

    def product(self, input: torch.Tensor) -> torch.Tensor:
        """[rows, in] -> [rows, all outputs]."""
        rows = len(input)
        if rows == 1 and self._plain is not None:
            return torch.nn.functional.linear(input, self._plain, self._bias)
        wanted = self.padded_rows(rows)
        if wanted == rows:
            return self._run(input)
        # What former calls left in the other rows is computed and never looked at.
        padded = self._few
        if wanted > self._least:
            padded = input.new_zeros(wanted, self._in_features)
        padded[:rows].copy_(input)
        return self._run(padded)[:rows]

    def add_product(self, hidden: torch.Tensor, input: torch.Tensor) -> None:
        """Add the product of ``input``, [rows, in], to the first rows of ``hidden``, in place."""
        hidden[: len(input)].add_(self.product(input))

    def __call__(self, input: torch.Tensor) -> torch.Tensor:
        """[.., in] -> [.., all outputs]."""
        rows = self.product(input.reshape(-1, self._in_features))
        return rows.view(*input.shape[:-1], sum(self.sizes))

    def padded_rows(self, rows: int) -> int:
        """Rows with those that only fill up: a power of two, or a multiple of ``ROWS_STEP``."""
        if rows > ROWS_STEP:
            return -(-rows // ROWS_STEP) * ROWS_STEP
        return max(self._least, 1 << (rows - 1).bit_length()) if rows else 0

    def _run(self, input: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = self._multiply(input, self._packed, self._bias, "none", [], "")
        return product


class PackedLinear(torch.nn.Module):
    """``torch.nn.Linear`` for inference; [.., in] -> [.., out].

    It has no ``weight``; a model that reads that itself must keep its plain layer.
    """

    def __init__(self, linear: torch.nn.Linear, few: FewRows) -> None:
        super().__init__()
        self.packed = PackedWeight([linear], few)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """See ``torch.nn.Linear``."""
        return self.packed(input)


class Siblings:
    """The outputs of layers that share their input, from one product.

    The first one that sees an input computes for all; the last one forgets it.
    """

    def __init__(self, linears: Sequence[torch.nn.Linear], few: FewRows) -> None:
        self.packed = PackedWeight(linears, few)
        self._input: torch.Tensor | None = None
        self._outputs: Sequence[torch.Tensor] = ()

    def output(self, member: int, input: torch.Tensor) -> torch.Tensor:
        """What one layer makes of an input."""
        if self._input is not input:
            product = self.packed(input)
            self._outputs = torch.split(product, self.packed.sizes, -1)
            self._input = input
        out = self._outputs[member]
        if member == len(self._outputs) - 1:
            self._input, self._outputs = None, ()
        return out


class SiblingLinear(torch.nn.Module):
    """One of several layers that are applied to the same input; see ``PackedLinear``."""

    def __init__(self, siblings: Siblings, member: int) -> None:
        super().__init__()
        self._siblings = siblings
        self._member = member

    @property
    def packed(self) -> PackedWeight:
        """The weights of all siblings."""
        return self._siblings.packed

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """See ``torch.nn.Linear``."""
        return self._siblings.output(self._member, input)


def pack_linears(model: torch.nn.Module, few: FewRows, *, keep: tuple[str, ...] = ()) -> bool:
    """Pack every plain linear layer; those whose name is in ``keep`` stay as they are.

    Args:
        model: whose layers are replaced.
        few: how few rows are multiplied.
        keep: names of layers.

    Returns:
        False where this machine's torch cannot; nothing was changed then.
    """
    parents = [
        (parent, linears) for parent in model.modules() if (linears := _plain_linears(parent, keep))
    ]
    dtypes = {linear.weight.dtype for _, linears in parents for linear in linears.values()}
    if not dtypes or not all(can_pack(dtype) for dtype in dtypes):
        return False
    for parent, linears in parents:
        for names in SIBLINGS:
            _join(parent, linears, names, few)
        for name, linear in linears.items():
            setattr(parent, name, PackedLinear(linear, few))
    return True


def packed_products(model: Any) -> DecoderProducts | None:
    """Of a decoder of the Llama family; None where a linear layer is not packed."""
    if type(model.lm_head) is not PackedLinear:
        return None
    layers = []
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        siblings = (attention.q_proj, mlp.gate_proj)
        alone = (attention.o_proj, mlp.down_proj)
        if not all(type(s) is SiblingLinear for s in siblings):
            return None
        if not all(type(linear) is PackedLinear for linear in alone):
            return None
        ordered = (attention.q_proj, attention.o_proj, mlp.gate_proj, mlp.down_proj)
        layers.append(LayerProducts(*(linear.packed for linear in ordered)))
    return DecoderProducts(layers, model.lm_head.packed)


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """The parts below each other; a single one is not copied."""
    return parts[0].detach() if len(parts) == 1 else torch.cat(list(parts)).detach()


def _plain_linears(parent: torch.nn.Module, keep: tuple[str, ...]) -> dict[str, torch.nn.Linear]:
    return {
        name: child
        for name, child in parent.named_children()
        if type(child) is torch.nn.Linear and name not in keep
    }


def _join(
    parent: torch.nn.Module,
    linears: dict[str, torch.nn.Linear],
    names: Sequence[str],
    few: FewRows,
) -> None:
    """Replace siblings, and take them out of ``linears``."""
    found = [linears[name] for name in names if name in linears]
    alike = {(linear.in_features, linear.bias is None) for linear in found}
    if len(found) < len(names) or len(alike) > 1:
        return
    siblings = Siblings(found, few)
    for member, name in enumerate(names):
        del linears[name]
        setattr(parent, name, SiblingLinear(siblings, member))


@torch.inference_mode()
def can_pack(dtype: torch.dtype) -> bool:
    """True where a packed product of this type works and is right."""
    tolerance = TOLERANCE.get(dtype)
    if tolerance is None:
        return False
    plain = torch.nn.Linear(*TRIED, dtype=dtype)
    input = torch.linspace(-1, 1, 3 * TRIED[0]).view(1, 3, -1).to(dtype)
    try:
        packed = PackedLinear(plain, FewRows())(input)
    except (RuntimeError, AttributeError):  # another build of torch, or another processor
        return False
    return torch.allclose(packed, plain(input), atol=tolerance, rtol=tolerance)
