"""Decode buckets, and decode steps padded to them against plain steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.worker.attention.flash2 import Flash2
from longspan.worker.attention.folded import FoldedBackend
from longspan.worker.attention.naive import NaiveBackend
from longspan.worker.attention.policy import FULL_MODEL, PRESETS, ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.generation.buckets import (
    LEAST_BLOCKS,
    block_bucket,
    bucket_for,
    decode_buckets,
)
from longspan.worker.generation.decode_graph import (
    DecodeGraphs,
    DecodeInputs,
    Repeat,
    Staging,
    decode_inputs,
    repeat_eagerly,
)
from tests.worker import flash_emulator as emulator

CPU = torch.device("cpu")
Ids = npt.NDArray[np.uint32]
BUCKETS = (1, 2, 4)
BLOCKS = 4
SCRATCH = 12
HEADS, KV_HEADS, DIM, VOCABULARY = 4, 2, 16, 50
EMULATED = FoldedBackend(Flash2(emulator.flash2_varlen, emulator.flash2_with_kvcache))


def test_buckets_double_up_to_the_optimum_then_step() -> None:
    """The example of the documentation."""
    assert decode_buckets(1, 16, 32) == (1, 2, 4, 8, 16, 24, 32)
    assert decode_buckets(1, 1, 3) == (1, 2, 3)
    assert decode_buckets(6, 6, 6) == (6,)


@given(st.lists(st.integers(1, 300), min_size=3, max_size=3).map(sorted))
def test_buckets_ascend_and_waste_little(sizes: list[int]) -> None:
    """The three sizes are among them, and padding is bounded as promised."""
    smallest, optimum, largest = sizes
    buckets = decode_buckets(smallest, optimum, largest)
    assert set(sizes) <= set(buckets)
    assert list(buckets) == sorted(set(buckets))
    assert (buckets[0], buckets[-1]) == (smallest, largest)
    for rows in range(smallest, largest + 1):
        bucket = bucket_for(buckets, rows)
        assert bucket is not None
        assert bucket >= rows
        waste = rows if rows <= optimum else max(1, optimum // 2)
        assert bucket - rows < waste


@pytest.mark.parametrize("sizes", [(0, 1, 2), (2, 1, 4), (1, 8, 4)])
def test_sizes_out_of_order_are_refused(sizes: tuple[int, int, int]) -> None:
    """A configuration that contradicts itself is a clear error."""
    with pytest.raises(ValueError, match="min <= opt <= max"):
        decode_buckets(*sizes)


def test_no_bucket_for_more_rows_than_the_largest() -> None:
    """Larger steps run without a graph."""
    assert bucket_for(BUCKETS, 3) == 4
    assert bucket_for(BUCKETS, 5) is None


@given(blocks=st.integers(1, 4096), most=st.integers(1, 4096))
def test_block_tables_double(blocks: int, most: int) -> None:
    """Room for all pages, at most twice as much, and few lengths in all."""
    blocks = min(blocks, most)
    found = block_bucket(blocks, most)
    assert blocks <= found <= most
    assert found <= max(2 * blocks - 1, LEAST_BLOCKS)
    lengths = {block_bucket(length, most) for length in range(1, most + 1)}
    assert len(lengths) <= 1 + max(0, (most - 1).bit_length() - (LEAST_BLOCKS - 1).bit_length())


def test_a_policy_without_a_graph_is_run_plainly(capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be captured while requests are served fails no request, and is said once."""
    decoder, plain = TinyDecoder(), TinyDecoder()

    def capture(step: Callable[[], torch.Tensor], device: torch.device) -> Repeat:
        raise RuntimeError("out of memory\nmore about it")

    graphs = DecodeGraphs(
        decoder.forward, BUCKETS, CPU, blocks=BLOCKS, scratch_page=SCRATCH, capture=capture
    )
    policy = PRESETS["hybrid"].of(4)
    for seed in (1, 2):
        ids, rows = step_of([3, 300], seed)
        expected = plain.naive(ids, rows)
        actual = graphs.run(decode_inputs(ids, rows), policy)
        torch.testing.assert_close(actual, expected, atol=2e-4, rtol=1e-4)
    said = capsys.readouterr().err
    assert said.count("no CUDA graph of hybrid for 2 rows of 4 pages: out of memory\n") == 1
    with pytest.raises(RuntimeError, match="out of memory"):
        graphs.warm_up()


class TinyDecoder:
    """One attention layer between an embedding and a projection, with pages of its own."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        self.embedding = random(VOCABULARY, HEADS * DIM) / 2
        self.projection = random(HEADS * DIM, VOCABULARY)
        shape = (SCRATCH + 1, KV_HEADS, PAGE_TOKENS, DIM)
        self.layer = LayerPages(random(*shape), random(*shape))
        self.batches: list[int] = []

    def forward(self, inputs: DecodeInputs, policy: ModelPolicy = FULL_MODEL) -> torch.Tensor:
        """Writes the tokens' keys and values and attends, as the runner's step does."""
        self.batches.append(inputs.rows)
        hidden = self.embedding[inputs.ids] + inputs.positions[:, None] / 1000
        kv = hidden.view(-1, HEADS, DIM)[:, :KV_HEADS].transpose(0, 1)
        self.layer.write(inputs.slots, kv, kv.flip(-1))
        plan = EMULATED.decode_plan(inputs.block_tables, inputs.keys)
        out, _ = EMULATED.attend(hidden.view(-1, HEADS, DIM), self.layer, plan, scale=0.2)
        return out.flatten(1) @ self.projection

    def naive(self, ids: Ids, rows: AttentionRows) -> torch.Tensor:
        """The same from the chunks themselves: no padding, no tables of fixed width."""
        hidden = (
            self.embedding[ids.astype(np.int64)] + torch.from_numpy(rows.starts)[:, None] / 1000
        )
        kv = hidden.view(-1, HEADS, DIM)[:, :KV_HEADS].transpose(0, 1)
        slots = replace(rows.slots(CPU), fresh=None)
        self.layer.write(slots, kv, kv.flip(-1))
        query = hidden.view(-1, HEADS, DIM)
        out, _ = NaiveBackend().attend(query, self.layer, rows, scale=0.2)
        return out.flatten(1) @ self.projection


def step_of(starts: list[int], seed: int) -> tuple[Ids, AttentionRows]:
    """A decode step of sequences that stand at ``starts``, two pages each at most."""
    rng = np.random.default_rng(seed)
    pages = rng.permutation(SCRATCH).astype(np.int32).reshape(-1, 2)
    tables = [pages[i, : start // PAGE_TOKENS + 1] for i, start in enumerate(starts)]
    lengths = np.ones(len(starts), np.int64)
    ids = rng.integers(0, VOCABULARY, len(starts), dtype=np.uint32)
    return ids, AttentionRows(np.array(starts, np.int64), lengths, tables)


def graphs_of(decoder: TinyDecoder) -> DecodeGraphs:
    """The graphs' eager twin: the same buffers and padding, no CUDA."""
    return DecodeGraphs(
        decoder.forward,
        BUCKETS,
        CPU,
        blocks=BLOCKS,
        scratch_page=SCRATCH,
        capture=repeat_eagerly,
    )


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.lists(st.sampled_from([0, 1, 254, 255, 256, 400]), min_size=1, max_size=5),
        min_size=1,
        max_size=4,
    ),
    seed=st.integers(0, 100),
)
def test_padded_steps_equal_plain_ones(steps: list[list[int]], seed: int) -> None:
    """Step after step through the same buffers, every row has the plain step's logits."""
    decoder, plain = TinyDecoder(), TinyDecoder()
    graphs = graphs_of(decoder)
    for number, starts in enumerate(steps):
        ids, rows = step_of(starts, seed + number)
        expected = plain.naive(ids, rows)
        actual = graphs.run(decode_inputs(ids, rows))
        torch.testing.assert_close(actual, expected, atol=2e-4, rtol=1e-4)
        assert decoder.batches[-1] == (bucket_for(BUCKETS, len(starts)) or len(starts))


def test_padding_writes_to_the_scratch_page_alone() -> None:
    """Every page of a sequence keeps its contents but for the slot of the step's token."""
    decoder = TinyDecoder()
    before = decoder.layer.keys.clone()
    ids, rows = step_of([0, 255, 256], seed=1)
    graphs_of(decoder).run(decode_inputs(ids, rows))
    changed = (decoder.layer.keys != before).any(-1).any(1).nonzero().tolist()
    own = [
        [int(table[-1]), start % PAGE_TOKENS]
        for table, start in zip(rows.block_tables, rows.starts.tolist(), strict=True)
    ]
    assert sorted(changed) == sorted([*own, [SCRATCH, 0]])


def test_warm_up_touches_the_scratch_page_alone() -> None:
    """Buckets are captured, the largest first, before any sequence exists."""
    captured: list[int] = []
    decoder = TinyDecoder()
    before = decoder.layer.keys.clone()

    def capture(step: Callable[[], torch.Tensor], device: torch.device) -> Repeat:
        captured.append(len(step()))
        return repeat_eagerly(step, device)

    graphs = DecodeGraphs(
        decoder.forward, BUCKETS, CPU, blocks=BLOCKS, scratch_page=SCRATCH, capture=capture
    )
    graphs.warm_up()
    assert captured == [4, 2, 1]
    assert torch.equal(decoder.layer.keys[:SCRATCH], before[:SCRATCH])
    ids, rows = step_of([3, 9, 27], seed=0)
    graphs.run(decode_inputs(ids, rows))
    assert captured == [4, 2, 1]


def test_inputs_of_a_step() -> None:
    """Columns say which token goes to which slot and how many keys it sees."""
    ids, rows = step_of([255, 256], seed=2)
    staging = Staging(4, BLOCKS, SCRATCH, CPU)
    staging.send(decode_inputs(*step_of([300, 1, 2, 3], seed=1)), 4)
    staging.send(decode_inputs(ids, rows), 3)
    inputs = staging.on_device(3, BLOCKS)
    assert inputs.ids.tolist() == [*ids.tolist(), 0]
    assert inputs.positions.tolist() == [255, 256, 0]
    assert inputs.slots.offsets.tolist() == [255, 0, 0]
    assert inputs.slots.pages.tolist() == [
        int(rows.block_tables[0][0]),
        int(rows.block_tables[1][1]),
        SCRATCH,
    ]
    assert inputs.keys.tolist() == [256, 257, 1]
    assert inputs.keys.dtype == torch.int32
    assert inputs.block_tables.shape == (3, BLOCKS)
    assert inputs.block_tables[0, 0] == rows.block_tables[0][0]
    assert inputs.block_tables[1, :2].tolist() == rows.block_tables[1].tolist()
    assert inputs.block_tables[2, 0] == SCRATCH
