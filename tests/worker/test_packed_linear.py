"""Packed linear layers against torch's own."""

from __future__ import annotations

import pytest
import torch

from longspan.worker.models.packed_linear import PackedLinear, can_pack, pack_linears


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 2, 4, 16, 300])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_plain_product(dtype: torch.dtype, rows: int, bias: bool) -> None:
    """Whatever the number of rows and the number type."""
    if not can_pack(dtype):
        pytest.skip(f"this machine's torch cannot pack {dtype}")
    torch.manual_seed(rows)
    model = torch.nn.Sequential(torch.nn.Linear(96, 50, bias=bias, dtype=dtype))
    x = torch.randn(1, rows, 96, dtype=dtype)
    with torch.inference_mode():
        expected = model(x)
        assert pack_linears(model)
        actual = model(x)
    assert type(model[0]) is PackedLinear
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def test_what_must_stay_plain_stays() -> None:
    """Subclasses compute in their own way; a kept layer's weight is read by its model."""

    class Quantised(torch.nn.Linear):
        pass

    model = torch.nn.ModuleDict({"own": Quantised(4, 4), "kept": torch.nn.Linear(4, 4)})
    pack_linears(model, keep=("kept",))
    assert [type(module) for module in model.values()] == [Quantised, torch.nn.Linear]


def test_a_type_that_cannot_be_packed_changes_nothing() -> None:
    """float64 has no packed product here."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, dtype=torch.float64))
    assert not pack_linears(model)
    assert type(model[0]) is torch.nn.Linear
