"""Attention kernels against the definition, and packing against plain loops."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.encoding.attention import (
    Kernel,
    attend_flash,
    attend_naive,
    attend_packed,
    attend_sdpa,
    attend_torch_varlen,
    select_kernel,
)
from longspan.worker.encoding.packing import make_segments, tile

CPU = torch.device("cpu")
LENGTHS = st.lists(st.sampled_from([1, 2, 3, 7, 7, 64, 130]), min_size=1, max_size=8)


def random_qkv(tokens: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value of 3 heads of 32 as a BERT layer makes them: [tokens, 3, 32]."""
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, tokens, 3, 32, generator=generator)
    return q, k, v


def emulated_flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
) -> torch.Tensor:
    """What flash-attn 2 documents for this function, with its argument checks, on a CPU."""
    assert q.shape == k.shape == v.shape
    assert q.dim() == 3
    assert all(x.stride(-1) == 1 for x in (q, k, v))
    assert q.shape[-1] % 8 == 0
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert cu_seqlens_q.is_contiguous()
    assert cu_seqlens_q[0] == 0
    assert cu_seqlens_q[-1] == len(q)
    assert max_seqlen_q == max_seqlen_k == int(cu_seqlens_q.diff().max())
    assert dropout_p == 0.0
    assert not causal
    scale = softmax_scale or q.shape[-1] ** -0.5
    out = torch.zeros_like(q)
    bounds = cu_seqlens_q.tolist()
    for start, end in pairwise(bounds):
        for head in range(q.shape[1]):
            scores = q[start:end, head] @ k[start:end, head].T * scale
            out[start:end, head] = scores.softmax(-1) @ v[start:end, head]
    return out


@pytest.mark.parametrize(
    "kernel", [attend_sdpa, partial(attend_flash, emulated_flash_attn_varlen_func)]
)
@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS)
def test_each_kernel_computes_the_definition(kernel: Kernel, lengths: list[int]) -> None:
    q, k, v = random_qkv(sum(lengths))
    segments = make_segments(lengths, CPU)
    expected = attend_naive(q, k, v, segments)
    torch.testing.assert_close(kernel(q, k, v, segments), expected, atol=2e-6, rtol=2e-5)


def test_no_text_sees_another() -> None:
    segments = make_segments([5, 9, 5], CPU)
    q, k, v = random_qkv(19)
    before = attend_sdpa(q, k, v, segments)
    k[5:14], v[5:14] = 100.0, -100.0
    after = attend_sdpa(q, k, v, segments)
    assert torch.equal(before[:5], after[:5])
    assert torch.equal(before[14:], after[14:])
    assert not torch.equal(before[5:14], after[5:14])


def test_a_mask_is_refused() -> None:
    q, k, v = (x.transpose(0, 1)[None] for x in random_qkv(4))
    segments = make_segments([4], CPU)
    with pytest.raises(AssertionError, match="mask"):
        attend_packed(
            torch.nn.Identity(), q, k, v, torch.ones(4, 4), kernel=attend_sdpa, segments=segments
        )


def test_a_cpu_gets_the_fused_kernel_of_torch() -> None:
    assert select_kernel(CPU, torch.float32) is attend_sdpa
    assert select_kernel(CPU, torch.bfloat16) is attend_sdpa


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_cuda_kernels_compute_the_definition() -> None:
    device = torch.device("cuda:0")
    lengths = [1, 7, 130, 512, 512, 33]
    segments = make_segments(lengths, device)
    q, k, v = (x.to(device, torch.bfloat16) for x in random_qkv(sum(lengths)))
    expected = attend_naive(q, k, v, segments)
    for kernel in {select_kernel(device, torch.bfloat16), attend_torch_varlen, attend_sdpa}:
        torch.testing.assert_close(kernel(q, k, v, segments), expected, atol=2e-2, rtol=2e-2)


@given(lengths=st.lists(st.integers(1, 60), max_size=30), budget=st.integers(1, 100))
def test_tiles_cover_all_texts_in_order_within_the_budget(lengths: list[int], budget: int) -> None:
    tiles = list(tile(lengths, budget))
    assert [i for part in tiles for i in range(len(lengths))[part]] == list(range(len(lengths)))
    for part in tiles:
        assert sum(lengths[part]) <= budget or len(lengths[part]) == 1
