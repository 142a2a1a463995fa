"""Packed linear layers against torch's own."""

from __future__ import annotations

import pytest
import torch

from longspan.worker.models.few_rows import FewRows, measure_few_rows
from longspan.worker.models.packed_linear import (
    PackedLinear,
    SiblingLinear,
    can_pack,
    pack_linears,
)

WAYS = [FewRows(), FewRows(least=1), FewRows(least=1, plain_row=True)]


@pytest.mark.parametrize("few", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [0, 1, 2, 4, 5, 16, 65, 300])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_plain_product(dtype: torch.dtype, rows: int, bias: bool, few: FewRows) -> None:
    """Whatever the number of rows and the number type."""
    if not can_pack(dtype):
        pytest.skip(f"this machine's torch cannot pack {dtype}")
    torch.manual_seed(rows)
    model = torch.nn.Sequential(torch.nn.Linear(96, 50, bias=bias, dtype=dtype))
    x = torch.randn(1, rows, 96, dtype=dtype)
    with torch.inference_mode():
        expected = model(x)
        assert pack_linears(model, few)
        actual = model(x)
    assert type(model[0]) is PackedLinear
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


class Layer(torch.nn.Module):
    """Siblings as decoders have them."""

    q_proj: torch.nn.Module
    k_proj: torch.nn.Module
    v_proj: torch.nn.Module

    def __init__(self, bias: bool) -> None:
        super().__init__()
        for name, size in (("q_proj", 48), ("k_proj", 16), ("v_proj", 16)):
            setattr(self, name, torch.nn.Linear(32, size, bias=bias))

    def forward(self, input: torch.Tensor) -> list[torch.Tensor]:
        return [self.q_proj(input), self.k_proj(input), self.v_proj(input)]


@pytest.mark.parametrize("few", WAYS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 7])
def test_siblings_give_what_each_gave_alone(bias: bool, rows: int, few: FewRows) -> None:
    """In their order, in another order, and for inputs that differ."""
    layer = Layer(bias)
    inputs = torch.randn(4, 1, rows, 32)
    with torch.inference_mode():
        expected = [layer(x) for x in inputs]
        assert pack_linears(layer, few)
        assert type(layer.q_proj) is SiblingLinear
        actual = [layer(x) for x in inputs]
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
        mixed = [layer.v_proj(inputs[0]), layer.q_proj(inputs[1]), layer.k_proj(inputs[0])]
        wanted = [expected[0][2], expected[1][0], expected[0][1]]
        torch.testing.assert_close(mixed, wanted, atol=1e-5, rtol=1e-5)


def test_siblings_that_differ_stay_apart() -> None:
    """One has a bias, one has not: each is packed alone."""
    layer = Layer(True)
    layer.k_proj = torch.nn.Linear(32, 16, bias=False)
    pack_linears(layer, FewRows())
    assert {type(module) for module in layer.children()} == {PackedLinear}


def test_what_must_stay_plain_stays() -> None:
    """Subclasses compute in their own way; a kept layer's weight is read by its model."""

    class Quantised(torch.nn.Linear):
        pass

    model = torch.nn.ModuleDict({"own": Quantised(4, 4), "kept": torch.nn.Linear(4, 4)})
    pack_linears(model, FewRows(), keep=("kept",))
    assert [type(module) for module in model.values()] == [Quantised, torch.nn.Linear]


def test_a_type_that_cannot_be_packed_changes_nothing() -> None:
    """float64 has no packed product here."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, dtype=torch.float64))
    assert not pack_linears(model, FewRows())
    assert type(model[0]) is torch.nn.Linear


def test_no_plain_weight_is_kept_where_it_may_not() -> None:
    """However fast it would be."""
    if not can_pack(torch.float32):
        pytest.skip("this machine's torch cannot pack")
    few = measure_few_rows(torch.float32, may_keep_plain=False)
    assert few.least in (1, FewRows().least)
    assert not few.plain_row
