"""16-bit linear layers on a CPU against the float32 product."""

from __future__ import annotations

import pytest
import torch

from longspan.worker.models import upcast_linear
from longspan.worker.models.upcast_linear import UPCAST_ROWS, UpcastLinear, upcast_linears


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 2, UPCAST_ROWS - 1, UPCAST_ROWS, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_float32_product_rounded_once(
    dtype: torch.dtype, rows: int, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number of rows takes its own way to the same numbers, tiles included."""
    monkeypatch.setattr(upcast_linear, "TILE_NUMBERS", 96 * 7)
    torch.manual_seed(rows)
    layer = torch.nn.Linear(96, 50, bias=bias, dtype=dtype)
    x = torch.randn(1, rows, 96, dtype=dtype)
    wide = layer.bias.float() if bias else None
    expected = torch.nn.functional.linear(x.float(), layer.weight.float(), wide)
    upcast_linears(torch.nn.Sequential(layer))
    with torch.inference_mode():
        actual = layer(x)
    assert type(layer) is UpcastLinear
    assert actual.dtype is dtype
    assert actual.shape == expected.shape
    torch.testing.assert_close(actual.float(), expected, atol=2e-2, rtol=2e-2)


def test_other_modules_are_left_alone() -> None:
    """Layers in float32, and subclasses that compute in their own way, stay what they are."""

    class Quantised(torch.nn.Linear):
        pass

    model = torch.nn.Sequential(torch.nn.Linear(4, 4), Quantised(4, 4, dtype=torch.bfloat16))
    upcast_linears(model)
    assert [type(module) for module in model] == [torch.nn.Linear, Quantised]
