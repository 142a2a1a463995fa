"""Linear attention written out: the exact part is the window's, the rest what the maps say."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from benchmarks.recall.linear_state import MAPS, FeatureMap, attend, favor, log_kernel
from benchmarks.recall.training_attention import windowed

from longspan.worker.attention.naive_policy import attend_naively
from longspan.worker.attention.policy import FULL, Kind, LayerPolicy
from longspan.worker.attention.zones import NO_ZONES

WINDOW = LayerPolicy(kind=Kind.WINDOW, prefix_pages=1, window_pages=1)
SCALE = 16**-0.5
TOKENS = 1100


def sequence(spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    numbers = torch.Generator().manual_seed(3)
    query, keys, values = (torch.randn(2, TOKENS, 16, generator=numbers) for _ in "qkv")
    return query * spread, keys * spread, values


def naive(policy: LayerPolicy, spread: float = 1.0) -> torch.Tensor:
    query, keys, values = (x.transpose(0, 1) for x in sequence(spread))
    attended = attend_naively(query, keys, values, policy, NO_ZONES, scale=SCALE, stride=4)
    return attended.out.transpose(0, 1)


def test_without_a_far_state_it_is_the_window() -> None:
    query, keys, values = sequence()
    out = attend(query, keys, values, WINDOW, None, scale=SCALE)
    torch.testing.assert_close(out, naive(WINDOW), rtol=1e-4, atol=1e-5)


def test_last_rows_alone_see_what_they_saw_among_all() -> None:
    query, keys, values = sequence()
    whole = attend(query, keys, values, WINDOW, MAPS["elu"], scale=SCALE)
    last = attend(query[:, -9:], keys, values, WINDOW, MAPS["elu"], scale=SCALE)
    torch.testing.assert_close(last, whole[:, -9:], rtol=1e-4, atol=1e-5)


def test_many_random_features_come_near_full_attention() -> None:
    """Where keys are short: their variance grows with the exponent of the norms."""
    query, keys, values = sequence(0.5)
    full = naive(FULL, 0.5)
    errors = [
        (attend(query, keys, values, WINDOW, far, scale=SCALE) - full).norm().item()
        for far in (None, partial(favor, features=4096))
    ]
    assert errors[1] < errors[0] / 10


@pytest.mark.parametrize("name", MAPS)
def test_the_kernel_is_the_product_of_the_features(name: str) -> None:
    feature_map: FeatureMap = MAPS[name]
    query, keys, _ = (x[:, :5] for x in sequence())
    ours, our_factor = feature_map(query * SCALE**0.5)
    theirs, their_factor = feature_map(keys * SCALE**0.5)
    assert (ours >= 0).all()
    products = (
        (ours * torch.as_tensor(our_factor).exp())[:, :, None]
        * (theirs * torch.as_tensor(their_factor).exp())[:, None]
    ).sum(-1)
    found = log_kernel(query, keys, feature_map, scale=SCALE).exp()
    torch.testing.assert_close(found, products, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("tokens", [5, 32, 100])
def test_windows_by_blocks_are_windows(tokens: int) -> None:
    query, keys, values = (x[None, :, :tokens] for x in sequence())
    places = torch.arange(tokens)
    back = places[:, None] - places
    scores = (query @ keys.mT * SCALE).masked_fill((back < 0) | (back >= 32), float("-inf"))
    expected = scores.softmax(-1) @ values
    torch.testing.assert_close(windowed(query, keys, values, 32, SCALE), expected)
