"""The GPU backends over emulated kernels, against the definition; and which machine gets which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from importlib import invalidate_caches
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.attention.base import Attended, Backend
from longspan.worker.attention.by_phase import ByPhase
from longspan.worker.attention.cpu import CpuBackend
from longspan.worker.attention.flash2 import Flash2
from longspan.worker.attention.flash3 import Flash3
from longspan.worker.attention.flash4 import Flash4
from longspan.worker.attention.folded import FoldedBackend
from longspan.worker.attention.naive import NaiveBackend
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.select import (
    Kind,
    Machine,
    choose,
    installed,
    make_backend,
    select_backend,
)
from longspan.worker.attention.tiled import TiledBackend
from longspan.worker.attention.torch_varlen import VarlenBackend, grouped, pieces
from tests.worker import flash_emulator as emulator
from tests.worker.test_paged_attention import CPU, layer_of, rows_of

VARLEN = partial(emulator.torch_varlen, enable_gqa=True)
BACKENDS: dict[str, Backend] = {
    "flash2": FoldedBackend(Flash2(emulator.flash2_varlen, emulator.flash2_with_kvcache)),
    "flash3": FoldedBackend(Flash3(emulator.flash3_with_kvcache)),
    "flash4": FoldedBackend(Flash4(emulator.flash4_varlen, 0)),
    "flash4 + 2": FoldedBackend(
        ByPhase(
            Flash4(emulator.flash4_varlen, 1, hopper=True),
            Flash2(emulator.flash2_varlen, emulator.flash2_with_kvcache),
        )
    ),
    "varlen": VarlenBackend(VARLEN, emulator.AuxRequest(lse=True)),
    "varlen, small tiles": VarlenBackend(VARLEN, emulator.AuxRequest(lse=True), key_tile=300),
    "tiled": TiledBackend(),
    "tiled, small tiles": TiledBackend(key_tile=100, scores=20_000),
}

Chunks = Sequence[tuple[int, int]]
MIXED = [(700, 1), (255, 1), (0, 300), (256, 1), (511, 2), (100, 157)]


def both(
    backend: Backend,
    chunks: Chunks,
    heads: tuple[int, int],
    dim: int,
    *,
    window: int | None = None,
    seed: int = 0,
) -> tuple[Attended, Attended]:
    """The same over random pages and queries."""
    rows, layer = rows_of(chunks, seed=seed), layer_of(heads[1], dim, seed=seed)
    # As the seam hands it over: heads outside tokens in memory.
    query = torch.randn(heads[0], rows.tokens, dim).transpose(0, 1)
    return compare(backend, rows, layer, query, window=window)


def compare(
    backend: Backend,
    rows: AttentionRows,
    layer: LayerPages,
    query: torch.Tensor,
    *,
    scale: float = 0.2,
    window: int | None = None,
) -> tuple[Attended, Attended]:
    """The definition's results and the backend's, on the CPU."""
    backends: tuple[Backend, Backend] = (NaiveBackend(), backend)
    expected, actual = (
        b.attend(query, layer, b.plan(rows, CPU), scale=scale, window=window) for b in backends
    )
    return expected, actual


def assert_close(expected: Attended, actual: Attended) -> None:
    """Both outputs agree to float32 rounding."""
    torch.testing.assert_close(actual.out, expected.out, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(actual.lse, expected.lse, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", BACKENDS)
@settings(max_examples=20, deadline=None)
@given(
    decode=st.lists(st.sampled_from([0, 1, 254, 255, 256, 700]), max_size=3),
    prefill=st.lists(
        st.tuples(st.sampled_from([0, 1, 255, 256, 600]), st.sampled_from([1, 2, 37, 256, 300])),
        max_size=3,
    ),
    heads=st.sampled_from([(4, 4), (6, 2), (4, 1)]),
    dim=st.sampled_from([16, 64]),
    window=st.sampled_from([None, 1, 24, 256, 300, 4096]),
    seed=st.integers(0, 100),
)
def test_backend_equals_the_definition(
    name: str,
    decode: list[int],
    prefill: list[tuple[int, int]],
    heads: tuple[int, int],
    dim: int,
    window: int | None,
    seed: int,
) -> None:
    """Decode rows, prefill chunks and both together give the definition's numbers."""
    chunks = [*((start, 1) for start in decode), *prefill] or [(0, 1)]
    assert_close(*both(BACKENDS[name], chunks, heads, dim, window=window, seed=seed))


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("dim", [64, 128, 192])
def test_head_sizes(name: str, dim: int) -> None:
    """Wide heads are attended to as narrow ones."""
    assert_close(*both(BACKENDS[name], MIXED, (4, 2), dim))


@pytest.mark.parametrize("name", BACKENDS)
def test_a_decode_row_may_follow_a_prefill_chunk(name: str) -> None:
    """The scheduler puts decode rows first; a chunk of one token elsewhere is right too."""
    assert_close(*both(BACKENDS[name], [(10, 30), (300, 1), (4, 1)], (4, 2), 16))


@pytest.mark.parametrize("name", BACKENDS)
def test_half_precision_keeps_the_query_type(name: str) -> None:
    """bf16 in, bf16 out, and the log-sum-exp in float32."""
    rows = rows_of(MIXED, seed=1)
    full = layer_of(2, 64, seed=1)
    layer = LayerPages(full.keys.bfloat16(), full.values.bfloat16())
    query = torch.randn(rows.tokens, 4, 64).bfloat16()
    expected, actual = compare(BACKENDS[name], rows, layer, query, scale=0.1)
    assert actual.out.dtype == torch.bfloat16
    assert actual.lse.dtype == torch.float32
    torch.testing.assert_close(actual.out, expected.out, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(actual.lse, expected.lse, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("tile", [100, 4096])
def test_tiled_backend_takes_latents(tile: int) -> None:
    """MLA: one kv head, keys wider than any flash kernel takes, values a part of them."""
    rows, layer = (
        rows_of([(500, 1), (300, 40), (0, 1)], seed=4),
        layer_of(1, 320, seed=2, latent=256),
    )
    query = torch.randn(rows.tokens, 4, 320)
    assert_close(*compare(TiledBackend(key_tile=tile), rows, layer, query, scale=0.1))


def test_a_step_folds_its_tables_once_for_all_layers() -> None:
    """Layers of the same number of kv heads get the same tables."""
    backend = FoldedBackend(Flash3(emulator.flash3_with_kvcache))
    plan = backend.plan(rows_of(MIXED, seed=0), CPU)
    assert plan.fold(2) is plan.fold(2)
    assert [tables.decode for _, tables in plan.fold(2)] == [True, False]


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=5), kv_heads=st.integers(1, 4))
def test_folding_is_a_permutation_that_groups_segments(lengths: list[int], kv_heads: int) -> None:
    """Folded row r of segment (i, h) is kv head h of a token of sequence i, in order."""
    rows = rows_of([(0, length) for length in lengths], seed=0)
    backend = FoldedBackend(Flash3(emulator.flash3_with_kvcache))
    for part, tables in backend.plan(rows, CPU).fold(kv_heads):
        queries = part.rows
        count = (queries.stop - queries.start) * kv_heads
        order = torch.arange(count) if tables.order is None else tables.order
        owners = [
            (sequence, head, token)
            for sequence, (first, last) in enumerate(pairwise(rows.offsets.tolist()))
            if queries.start <= first < queries.stop
            for head in range(kv_heads)
            for token in range(first, last)
        ]
        expected = [(token - queries.start) * kv_heads + head for _, head, token in owners]
        assert order.tolist() == expected
        assert tables.query_offsets.diff().sum() == count


def test_static_decode_tables_give_the_same_as_a_planned_step() -> None:
    """What a CUDA graph captures: tables wider than needed, lengths read on the device."""
    rows, layer = rows_of([(700, 1), (255, 1), (0, 1)], seed=2), layer_of(2, 16, seed=2)
    query = torch.randn(rows.tokens, 4, 16)
    tables = torch.zeros(3, 9, dtype=torch.int32)
    for row, table in zip(tables, rows.block_tables, strict=True):
        row[: len(table)] = torch.from_numpy(table)
    keys = torch.from_numpy(rows.ends).int()
    for name in ("flash2", "flash3", "flash4", "flash4 + 2"):
        backend = BACKENDS[name]
        assert isinstance(backend, FoldedBackend)
        for window in (None, 300):
            planned, static = (
                backend.attend(query, layer, plan, scale=0.2, window=window)
                for plan in (backend.plan(rows, CPU), backend.decode_plan(tables, keys))
            )
            assert torch.equal(planned.out, static.out)
            assert torch.equal(planned.lse, static.lse)


def test_pieces_cover_every_visible_key_once() -> None:
    """Older tiles and the newest piece are disjoint and cover [0, end); memory is bounded."""
    rows = rows_of([(1000, 1), (200, 300), (0, 5)], seed=0)
    newest, older = pieces(rows, None, 300)
    for sequence, end in enumerate(rows.ends.tolist()):
        own = [p for p in (*older, *newest) if p.sequence == sequence]
        keys = sorted(key for p in own for key in range(p.first, p.last))
        assert keys == list(range(end))
    assert all(piece.last - piece.first == 300 for piece in older)
    groups = list(grouped(newest, 300))
    assert [piece for group in groups for piece in group] == newest
    assert all(len(group) == 1 or sum(p.last - p.first for p in group) <= 300 for group in groups)


def test_emulator_aligns_masks_to_the_bottom_right() -> None:
    """The examples of flash-attention's documentation: 2 queries of 5 keys, 5 queries of 2."""
    wide = [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert emulator.visible(2, 5, True, (-1, -1)).int().tolist() == wide
    tall = [[0, 0], [0, 0], [0, 0], [1, 0], [1, 1]]
    assert emulator.visible(5, 2, True, (-1, -1)).int().tolist() == tall
    band = [[0, 0, 1, 1, 0], [0, 0, 0, 1, 1]]
    assert emulator.visible(2, 5, True, (1, 0)).int().tolist() == band


def test_emulator_gives_masked_rows_no_mass() -> None:
    """A query that sees no key gets 0; its lse is -inf, or +inf in flash-attn 2."""
    q, k = torch.randn(3, 1, 8), torch.randn(1, 256, 1, 8)
    cu = torch.tensor([0, 3], dtype=torch.int32)
    keys, table = torch.tensor([1], dtype=torch.int32), torch.zeros(1, 1, dtype=torch.int32)
    out, lse = emulator.flash4_varlen(
        q, k, k, cu_seqlens_q=cu, seqused_k=keys, page_table=table, causal=True, return_lse=True
    )
    assert lse is not None
    assert out[:2].abs().sum() == 0
    assert lse[0, :2].tolist() == [-math.inf, -math.inf]
    result = emulator.flash2_varlen(
        q, k, k, cu, torch.tensor([0, 1], dtype=torch.int32), 3, 1,
        causal=True, return_attn_probs=True, block_table=table,
    )  # fmt: skip
    assert result[1][0, :2].tolist() == [math.inf, math.inf]


@pytest.mark.parametrize(
    ("page", "dim", "table_type", "message"),
    [
        (128, 8, torch.int32, "divisible by 256"),
        (256, 264, torch.int32, "at most 256"),
        (256, 12, torch.int32, "multiple of 8"),
        (256, 8, torch.int64, "int32"),
    ],
)
def test_emulator_refuses_what_flash_attn_2_refuses(
    page: int, dim: int, table_type: torch.dtype, message: str
) -> None:
    """Page sizes, head sizes and number types outside the documented ones are errors."""
    q, k = torch.randn(1, 1, 1, dim), torch.randn(1, page, 1, dim)
    with pytest.raises(RuntimeError, match=message):
        emulator.flash2_with_kvcache(
            q,
            k,
            k,
            cache_seqlens=torch.ones(1, dtype=torch.int32),
            block_table=torch.zeros(1, 1, dtype=table_type),
        )


EVERYTHING = frozenset(Kind) - {Kind.CPU, Kind.TILED}


@pytest.mark.parametrize(
    ("machine", "half", "head_dim", "kind"),
    [
        (Machine("cpu"), True, 128, Kind.CPU),
        (Machine("mps"), True, 128, Kind.TILED),
        (Machine("cuda", (9, 0), EVERYTHING), True, 128, Kind.FLASH3),
        (Machine("cuda", (9, 0), EVERYTHING), False, 128, Kind.TILED),
        (Machine("cuda", (9, 0), EVERYTHING), True, 576, Kind.TILED),
        (Machine("cuda", (9, 0), EVERYTHING), True, 100, Kind.TILED),
        (Machine("cuda", (9, 0), EVERYTHING - {Kind.FLASH3}), True, 128, Kind.FLASH4_2),
        (Machine("cuda", (9, 0), EVERYTHING - {Kind.FLASH3}), True, 72, Kind.FLASH2),
        (Machine("cuda", (9, 0), frozenset({Kind.FLASH4, Kind.VARLEN})), True, 192, Kind.FLASH4),
        (Machine("cuda", (10, 0), EVERYTHING), True, 128, Kind.FLASH4),
        (Machine("cuda", (10, 0), EVERYTHING), True, 192, Kind.FLASH2),
        (Machine("cuda", (10, 0), frozenset({Kind.FLASH4, Kind.VARLEN})), True, 256, Kind.VARLEN),
        (Machine("cuda", (8, 9), EVERYTHING), True, 256, Kind.FLASH2),
        (Machine("cuda", (12, 0), EVERYTHING), True, 128, Kind.FLASH2),
        (Machine("cuda", (8, 0), frozenset({Kind.FLASH4, Kind.VARLEN})), True, 64, Kind.VARLEN),
        (Machine("cuda", (8, 0)), True, 64, Kind.TILED),
        (Machine("cuda", (7, 5), EVERYTHING), True, 64, Kind.TILED),
    ],
)
def test_choice(machine: Machine, half: bool, head_dim: int, kind: Kind) -> None:
    """The fastest kernel that is installed and right for the GPU, number type and head size."""
    assert choose(machine, half=half, head_dim=head_dim) is kind


def test_every_choice_without_a_kernel_library_can_be_made() -> None:
    """A machine without flash-attn gets a backend that works here."""
    assert isinstance(select_backend(CPU, torch.bfloat16, 128), CpuBackend)
    assert isinstance(make_backend(Kind.TILED), TiledBackend)
    assert isinstance(make_backend(Kind.VARLEN), VarlenBackend)


@pytest.mark.parametrize("asks", [True, False], ids=["torch 2.13", "torch 2.11"])
def test_torch_is_told_of_grouped_heads_where_it_asks(
    asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its earlier function takes them, and has no parameter to say so."""

    def earlier(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        cu_q: torch.Tensor,
        cu_k: torch.Tensor,
        max_q: int,
        max_k: int,
        *,
        return_aux: emulator.AuxRequest | None = None,
        scale: float | None = None,
        window_size: tuple[int, int] = (-1, -1),
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        return VARLEN(
            q, k, v, cu_q, cu_k, max_q, max_k,
            return_aux=return_aux, scale=scale, window_size=window_size,
        )  # fmt: skip

    monkeypatch.setattr(
        "torch.nn.attention.varlen.varlen_attn", emulator.torch_varlen if asks else earlier
    )
    assert_close(*both(make_backend(Kind.VARLEN), MIXED, (6, 2), 16))


def test_a_missing_library_is_an_import_error() -> None:
    """Asking for a kernel that is not installed says so."""
    with pytest.raises(ImportError, match="flash_attn"):
        make_backend(Kind.FLASH3)


def test_installed_libraries_are_found_without_importing_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each by the module that only it brings; flash-attn 4 shares its package with 2."""
    here = installed()
    (tmp_path / "flash_attn" / "cute").mkdir(parents=True)
    interface = tmp_path / "flash_attn" / "cute" / "interface.py"
    for module in ("flash_attn/__init__", "flash_attn/cute/__init__", "flash_attn_interface"):
        (tmp_path / f"{module}.py").write_text("raise ImportError('imported by the probe')")
    interface.write_text("def flash_attn_varlen_func(q, k, v, num_splits=1): ...")
    monkeypatch.syspath_prepend(tmp_path)
    assert installed() - here == {Kind.FLASH3, Kind.FLASH4}
    assert Kind.VARLEN in here
    (tmp_path / "flash_attn_2_cuda.py").touch()
    invalidate_caches()
    assert installed() - here == {Kind.FLASH2, Kind.FLASH3, Kind.FLASH4, Kind.FLASH4_2}
    interface.write_text("def flash_attn_varlen_func(q, k, v): ...")  # flash-attn 2's draft of it
    assert installed() - here == {Kind.FLASH2, Kind.FLASH3}


def test_pages_are_seen_as_blocks_without_a_copy() -> None:
    """Block page * kv_heads + head is that head's part of that page, in the same memory."""
    layer = layer_of(3, 16, seed=0)
    blocks = layer.keys.view(-1, PAGE_TOKENS, 1, 16)
    assert blocks.data_ptr() == layer.keys.data_ptr()
    assert torch.equal(blocks[5 * 3 + 2, :, 0], layer.keys[5, 2])
