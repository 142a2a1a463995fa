"""The sampler, against a plain reading of the rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.sampling.batch_sampler import best, sample_batch
from longspan.worker.sampling.params import SamplingParams
from longspan.worker.sampling.row import SamplingRow
from longspan.worker.sampling.sampler import sample

Sampler = Callable[[torch.Tensor, Sequence[SamplingRow]], list[int]]
SAMPLERS = pytest.mark.parametrize("sampler", [sample, sample_batch])
VOCABULARY = 97
PARAMS = st.builds(
    SamplingParams,
    max_tokens=st.just(1),
    temperature=st.sampled_from([0.0, 1e-30, 0.3, 1.0, 5.0]),
    top_k=st.sampled_from([0, 1, 2, 10, VOCABULARY, 500]),
    top_p=st.sampled_from([1.0, 0.999, 0.9, 0.5, 1e-6]),
    min_p=st.sampled_from([0.0, 0.01, 0.2, 1.0]),
    seed=st.integers(0, (1 << 64) - 1),
)


def naive_weights(logits: list[float], params: SamplingParams) -> dict[int, float]:
    """Probabilities of the tokens that may be drawn, by sorting, in double precision."""
    highest = max(logits)
    weights = {
        token: math.exp((logit - highest) / params.temperature)
        for token, logit in enumerate(logits)
        if logit > -math.inf
    }
    order = sorted(weights, key=weights.__getitem__, reverse=True)
    order = order[: params.top_k or None]
    total = sum(weights[token] for token in order)
    kept, mass = [], 0.0
    for token in order:
        if params.top_p < 1 and mass >= params.top_p * total:
            break
        kept.append(token)
        mass += weights[token]
    kept = [token for token in kept if weights[token] >= params.min_p * weights[order[0]]]
    total = sum(weights[token] for token in kept)
    return {token: weights[token] / total for token in sorted(kept)}


def naive_token(logits: list[float], row: SamplingRow) -> int:
    """The first token at which the cumulative distribution exceeds the row's number."""
    if row.params.greedy:
        return logits.index(max(logits))
    reached, token = 0.0, -1
    for token, weight in naive_weights(logits, row.params).items():
        reached += weight
        if reached > row.number:
            return token
    return token


def random_logits(rows: int, seed: int, vocabulary: int = VOCABULARY) -> torch.Tensor:
    """Logits without ties, whose kept sets do not hang on rounding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, vocabulary, generator=generator) * 4


def packed(allowed: Sequence[int], vocabulary: int = VOCABULARY) -> torch.Tensor:
    """A mask of these tokens, a bit each."""
    bits = np.zeros(-(-vocabulary // 32) * 32, np.uint8)
    bits[list(allowed)] = 1
    return torch.from_numpy(np.packbits(bits, bitorder="little").view(np.int32))


@SAMPLERS
@settings(deadline=None)
@given(st.lists(PARAMS, min_size=1, max_size=5), st.integers(0, 1 << 30))
def test_tokens_are_those_of_the_naive_reading(
    sampler: Sampler, params: list[SamplingParams], seed: int
) -> None:
    """Greedy and drawn rows, with any filters, in one batch."""
    logits = random_logits(len(params), seed)
    rows = [SamplingRow(one, index) for index, one in enumerate(params)]
    expected = [naive_token(values, row) for values, row in zip(logits.tolist(), rows, strict=True)]
    assert sampler(logits, rows) == expected


@settings(deadline=None)
@given(st.lists(PARAMS, min_size=2, max_size=5), st.integers(0, 1 << 30))
def test_a_row_alone_gets_the_token_it_gets_in_a_batch(
    params: list[SamplingParams], seed: int
) -> None:
    """The other rows of a batch do not matter."""
    logits = random_logits(len(params), seed)
    rows = [SamplingRow(one, index) for index, one in enumerate(params)]
    for sampler in (sample, sample_batch):
        alone = [sampler(logits[i : i + 1], rows[i : i + 1])[0] for i in range(len(rows))]
        assert sampler(logits, rows) == alone


@SAMPLERS
@settings(deadline=None)
@given(st.sets(st.integers(0, VOCABULARY - 1), min_size=1), PARAMS, st.integers(0, 1 << 30))
def test_a_mask_forbids_what_it_does_not_name(
    sampler: Sampler, allowed: set[int], params: SamplingParams, seed: int
) -> None:
    """A masked row is sampled as if the other logits were -inf; the row beside it is not."""
    logits = random_logits(2, seed)
    rows = [SamplingRow(params, 0, packed(sorted(allowed))), SamplingRow(params, 1)]
    forbidden = [token for token in range(VOCABULARY) if token not in allowed]
    masked = logits.clone()
    masked[0, forbidden] = -math.inf
    before = logits.clone()
    tokens = sampler(logits, rows)
    assert tokens == [
        naive_token(values, row) for values, row in zip(masked.tolist(), rows, strict=True)
    ]
    assert tokens[0] in allowed
    assert torch.equal(logits, before)


@SAMPLERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_is_sampled_in_float32(sampler: Sampler, dtype: torch.dtype) -> None:
    """The token is that of the same numbers in float32."""
    logits = random_logits(8, 5).to(dtype)
    params = SamplingParams(max_tokens=1, temperature=0.8, seed=9)
    rows = [SamplingRow(params, index) for index in range(8)]
    assert sampler(logits, rows) == sampler(logits.float(), rows)
    greedy = [SamplingRow(SamplingParams(max_tokens=1), 0)] * 8
    assert sampler(logits, greedy) == logits.float().argmax(-1).tolist()


@SAMPLERS
def test_draws_follow_the_distribution(sampler: Sampler) -> None:
    """Counts of 5,000 draws over consecutive indices fit the filtered probabilities."""
    logits = random_logits(1, 3, 12) / 3
    params = SamplingParams(max_tokens=1, temperature=1.3, top_p=0.95, seed=11)
    rows = [SamplingRow(params, index) for index in range(5_000)]
    counts = np.bincount(sampler(logits.expand(5_000, -1), rows), minlength=12)
    weights = naive_weights(logits[0].tolist(), params)
    expected = np.array([weights.get(token, 0.0) * 5_000 for token in range(12)])
    assert not counts[expected == 0].any()
    kept = expected > 0
    chi_square = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    assert chi_square < 35  # at most 11 degrees of freedom: one in 4,000 exceeds it


def test_the_filters_keep_what_hugging_face_keeps() -> None:
    """The tokens that can be drawn are those that transformers' warpers leave."""
    from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = random_logits(1, 8)
    warped = logits / 0.9
    nothing: Any = torch.empty(1, 0, dtype=torch.long)
    for warper in (TopKLogitsWarper(40), TopPLogitsWarper(0.9), MinPLogitsWarper(0.02)):
        warped = warper(nothing, warped)
    kept = torch.nonzero(warped[0] > -math.inf)[:, 0].tolist()
    params = SamplingParams(max_tokens=1, temperature=0.9, top_k=40, top_p=0.9, min_p=0.02)
    assert list(naive_weights(logits[0].tolist(), params)) == kept
    rows = [SamplingRow(params, index) for index in range(800)]
    for sampler in (sample, sample_batch):
        assert set(sampler(logits.expand(800, -1), rows)) <= set(kept)


@SAMPLERS
@pytest.mark.parametrize("temperature", [0.5, 1e-30])
def test_equal_logits_are_all_kept(sampler: Sampler, temperature: float) -> None:
    """A tie at the edge of a filter is not broken by the order of the tokens."""
    logits = torch.zeros(200, 40)
    logits[:, 30] = -1000
    params = SamplingParams(max_tokens=1, temperature=temperature, top_k=3, top_p=0.5)
    tokens = sampler(logits, [SamplingRow(params, index) for index in range(200)])
    assert 30 not in tokens
    assert len(set(tokens)) > 25


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_draws_what_a_cpu_draws() -> None:
    """The same logits, rows and masks give the same tokens on both."""
    logits = random_logits(32, 4, 151_936)
    rows = [
        SamplingRow(
            SamplingParams(max_tokens=1, temperature=0.1 * (index % 5), top_p=0.9, seed=index),
            index,
            packed(range(index, 151_936, 3), 151_936) if index % 2 else None,
        )
        for index in range(32)
    ]
    assert sample(logits.cuda(), rows) == sample(logits, rows)


def test_best_is_greedy() -> None:
    """Its tokens are those of greedy rows, the first of equal ones, and a NaN is the largest."""
    logits = random_logits(8, 4, 300).bfloat16()
    logits[3] = 1.0
    logits[5, 7] = float("nan")
    largest, tokens = best(logits)
    rows = [SamplingRow(SamplingParams(max_tokens=1), index) for index in range(8)]
    assert tokens == sample(logits, rows)
    assert tokens[3] == 0
    assert largest[5] != largest[5]
    del largest[5]
    assert largest == torch.cat((logits[:5], logits[6:])).float().amax(-1).tolist()
