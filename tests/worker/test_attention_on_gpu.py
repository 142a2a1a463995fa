"""Real kernels and real CUDA graphs against the definition; skipped where there is no GPU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from longspan.worker.attention.base import Backend
from longspan.worker.attention.folded import FoldedBackend
from longspan.worker.attention.naive import NaiveBackend
from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.attention.pool import LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.select import Kind, choose, make_backend, probe
from longspan.worker.generation.decode_graph import DecodeGraphs, DecodeInputs, decode_inputs
from tests.worker.test_attention_gpu_plans import MIXED
from tests.worker.test_paged_attention import POOL_PAGES, layer_of, rows_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

DECODE = [(700, 1), (255, 1), (0, 1), (256, 1), (511, 1)]
PREFILL = [(0, 300), (256, 256), (100, 157)]
FLASH = [kind for kind in Kind if kind not in (Kind.CPU, Kind.TILED)]
ON_GPU = torch.device("cuda")


def backend_of(kind: Kind, head_dim: int) -> Backend:
    """The backend of this kind, or a skip that says what is missing."""
    machine = probe(ON_GPU)
    alone = replace(machine, installed=machine.installed & {kind})
    if kind is not Kind.TILED and choose(alone, half=True, head_dim=head_dim) is not kind:
        pytest.skip(f"{kind} is not installed, or not for this GPU and heads of {head_dim}")
    return make_backend(kind, capability=machine.capability)


def to_gpu(layer: LayerPages, dtype: torch.dtype) -> LayerPages:
    """The same pages on the GPU, values still a view of the keys where they were."""
    keys = layer.keys.to(ON_GPU, dtype)
    if layer.latent:
        return LayerPages(keys, keys[..., : layer.values.shape[-1]])
    return LayerPages(keys, layer.values.to(ON_GPU, dtype))


def assert_equals_definition(
    backend: Backend,
    rows: AttentionRows,
    layer: LayerPages,
    heads: int,
    *,
    window: int | None = None,
    atol: float = 2e-2,
) -> None:
    """Out and lse of one step, of the backend and of the definition on the same GPU."""
    dim = layer.keys.shape[-1]
    query = torch.randn(heads, rows.tokens, dim, device=ON_GPU).to(layer.keys.dtype)
    backends: tuple[Backend, Backend] = (NaiveBackend(), backend)
    expected, actual = (
        b.attend(query.transpose(0, 1), layer, b.plan(rows, ON_GPU), scale=dim**-0.5, window=window)
        for b in backends
    )
    torch.testing.assert_close(actual.out, expected.out, atol=atol, rtol=2e-2)
    torch.testing.assert_close(actual.lse, expected.lse, atol=atol, rtol=1e-2)


@pytest.mark.parametrize("kind", FLASH)
@pytest.mark.parametrize("chunks", [DECODE, PREFILL, MIXED], ids=["decode", "prefill", "mixed"])
@pytest.mark.parametrize("heads", [(4, 4), (12, 2), (8, 1)], ids=["mha", "gqa", "mqa"])
@pytest.mark.parametrize("window", [None, 1, 300])
def test_flash_kernels(
    kind: Kind, chunks: list[tuple[int, int]], heads: tuple[int, int], window: int | None
) -> None:
    """Every installed kernel computes the definition over shuffled pages."""
    backend, rows = backend_of(kind, 128), rows_of(chunks, seed=1)
    layer = to_gpu(layer_of(heads[1], 128, seed=1), torch.bfloat16)
    assert_equals_definition(backend, rows, layer, heads[0], window=window)


@pytest.mark.parametrize("kind", FLASH)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dim", [64, 96, 192, 256])
def test_head_sizes(kind: Kind, dtype: torch.dtype, dim: int) -> None:
    """The head sizes that the choice lets through work in both half types."""
    backend, rows = backend_of(kind, dim), rows_of(MIXED, seed=2)
    assert_equals_definition(backend, rows, to_gpu(layer_of(2, dim, seed=2), dtype), 4)


@pytest.mark.parametrize("chunks", [DECODE, MIXED], ids=["decode", "mixed"])
def test_tiled_backend(chunks: list[tuple[int, int]]) -> None:
    """float32, and MLA's latents in bf16."""
    backend, rows = make_backend(Kind.TILED), rows_of(chunks, seed=3)
    layer = to_gpu(layer_of(2, 128, seed=3), torch.float32)
    assert_equals_definition(backend, rows, layer, 4, window=300, atol=1e-4)
    latents = to_gpu(layer_of(1, 576, seed=3, latent=512), torch.bfloat16)
    assert_equals_definition(backend, rows, latents, 8)


@pytest.mark.parametrize("kind", [Kind.FLASH2, Kind.FLASH3, Kind.FLASH4, Kind.FLASH4_2])
def test_graph_replays_equal_plain_steps(kind: Kind) -> None:
    """Captured decode steps of several sizes and lengths give the definition's outputs."""
    backend = backend_of(kind, 128)
    assert isinstance(backend, FoldedBackend)
    scratch = POOL_PAGES
    pool = layer_of(2, 128, seed=4)
    more = torch.zeros(1, *pool.keys.shape[1:])
    layer = to_gpu(
        LayerPages(torch.cat((pool.keys, more)), torch.cat((pool.values, more))), torch.bfloat16
    )
    embedding = torch.randn(100, 8, 128, device=ON_GPU).bfloat16()

    def forward(inputs: DecodeInputs, _: ModelPolicy) -> torch.Tensor:
        query = embedding[inputs.ids]
        kv = query[:, :2].transpose(0, 1)
        layer.write(inputs.slots, kv, kv)
        plan = backend.decode_plan(inputs.block_tables, inputs.keys)
        return backend.attend(query, layer, plan, scale=0.1, window=300).out

    graphs = DecodeGraphs(forward, (1, 2, 4), ON_GPU, blocks=8, scratch_page=scratch)
    with torch.inference_mode():
        graphs.warm_up()
        for chunks in (DECODE[:1], DECODE[:3], DECODE, DECODE[1:3]):
            rows = rows_of(chunks, seed=len(chunks))
            ids = np.arange(len(chunks), dtype=np.uint32)
            out = graphs.run(decode_inputs(ids, rows)).clone()
            plain = NaiveBackend().attend(embedding[: len(ids)], layer, rows, scale=0.1, window=300)
            torch.testing.assert_close(out, plain.out, atol=2e-2, rtol=2e-2)
