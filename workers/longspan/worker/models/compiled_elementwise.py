"""The elementwise parts of a decoder layer, compiled: few kernels instead of some twenty."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from subprocess import SubprocessError
from typing import Any, NamedTuple

import torch

from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.models.elementwise import Elementwise, HeadNorms

INDUCTOR: dict[str, Any] = {"options": {"triton.autotune_pointwise": False}}
"""Of torch.compile. To choose among kernels it would copy what they change: the KV pages."""

FAILURES = (RuntimeError, OSError, ImportError, SubprocessError)
"""What torch raises where it cannot compile: no Triton, no C compiler, no place for the result."""

SEVERAL, PAGES = 5, 3
"""Rows and pages of the first call; any number from two on takes the same kernels after it."""


class LayerSizes(NamedTuple):
    """What the kernels are compiled for.

    Attributes:
        width: of q, k and v together.
        inner: of the MLP.
    """

    width: int
    kv_heads: int
    d: int
    inner: int


def compiled(
    plain: Elementwise,
    sizes: LayerSizes,
    norms: HeadNorms | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    compiler: Mapping[str, Any] = INDUCTOR,
) -> Elementwise:
    """The functions compiled and tried out; where that is impossible they stay as they are.

    No number of tokens that comes later compiles them anew. ``compiler`` are arguments of
    torch.compile.
    """
    try:
        made = Elementwise(
            torch.compile(plain.place, **compiler), torch.compile(plain.gate, **compiler)
        )
        # As the engine's: made outside of inference mode, which compiled code tells apart.
        pages = [
            torch.zeros(PAGES, sizes.kv_heads, PAGE_TOKENS, sizes.d, dtype=dtype, device=device)
            for _ in ("keys", "values")
        ]
        for rows in (SEVERAL, 1):
            _try_out(made, sizes, norms, pages, rows)
    except FAILURES as error:
        # What torch wraps around an error says only that there was one.
        inner = getattr(error, "inner_exception", error)
        reason = str(inner).strip().partition("\n")[0]
        print(f"longspan-worker: decoder without compiled kernels: {reason}", file=sys.stderr)
        return plain
    return made


@torch.inference_mode()
def _try_out(
    functions: Elementwise,
    sizes: LayerSizes,
    norms: HeadNorms | None,
    pages: list[torch.Tensor],
    rows: int,
) -> None:
    keys, values = pages
    qkv = keys.new_zeros(rows, sizes.width)
    cos, sin = (keys.new_zeros(rows, 1, sizes.d) for _ in range(2))
    slots = torch.arange(rows, device=keys.device)
    gate_up = keys.new_zeros(rows, 2 * sizes.inner)
    varying = [keys, values] if rows == 1 else [keys, values, qkv, cos, sin, slots, gate_up]
    for tensor in varying:
        torch._dynamo.mark_dynamic(tensor, 0)
    functions.place(qkv, cos, sin, keys, values, slots, norms)
    functions.gate(gate_up)
