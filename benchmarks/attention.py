"""Attention policies against full attention: one layer of 8 heads of 64, float32, on the CPU.

    python -m benchmarks attention

Prefill goes chunk by chunk as in the engine, its keys being written and its pages selected;
decode is one query over a stored sequence. The policies take turns in one process, and the ratio is
the median of those of all rounds. ``hybrid`` and ``hierarchical`` are the presets' layers from the
first page on; the presets themselves run full attention up to 16k tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from statistics import median

import numpy as np
import torch

from longspan.worker.attention.centroids import make_centroids
from longspan.worker.attention.cpu import CpuBackend
from longspan.worker.attention.four_bit_keys import make_four_bit_keys
from longspan.worker.attention.layer_plan import View
from longspan.worker.attention.policy import FULL, PRESETS, Far, LayerPolicy, ModelPolicy, Selector
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.attention.rows import AttentionRows
from longspan.worker.attention.seen import seen_share
from longspan.worker.attention.selectors import quest
from longspan.worker.attention.step_attention import StepAttention
from longspan.worker.attention.zones import NO_ZONES, Zones

HEADS, DIM = 8, 64
SCALE = DIM**-0.5
CHUNK = 1024
ROUNDS = {8192: 11, 32_768: 4, 131_072: 1}
"""Of the prefills of each length."""
DECODE_ROUNDS = 5
DECODES = (8192, 32_768, 131_072)
DECODED = 32
CPU = torch.device("cpu")
THREADS = 2
POLICIES: dict[str, LayerPolicy] = {
    "full": FULL,
    "window": PRESETS["window"].layer,
    "hybrid": replace(PRESETS["hybrid"].layer, dense_pages=0),
    "hybrid preset": PRESETS["hybrid"].layer,
    "hierarchical": replace(PRESETS["hierarchical"].layer, dense_pages=0),
    "hybrid-exact": replace(PRESETS["hybrid-exact"].layer, dense_pages=0),
    "hybrid-4bit": replace(PRESETS["hybrid-4bit"].layer, dense_pages=0),
}
Row = dict[str, object]


class Sequence:
    """A random sequence in a pool of its own."""

    def __init__(self, tokens: int) -> None:
        numbers = torch.Generator().manual_seed(tokens)
        shape = (tokens, HEADS, DIM)
        self.query, self.keys, self.values = (torch.randn(shape, generator=numbers) for _ in "qkv")
        self.table = np.arange(tokens // PAGE_TOKENS, dtype=np.int32)
        pool = (len(self.table), HEADS, PAGE_TOKENS, DIM)
        keys, values = torch.zeros(pool), torch.zeros(pool)
        self.layer = LayerPages(
            keys,
            values,
            quest.bounds(keys),
            make_centroids(keys, values),
            four_bit=make_four_bit_keys(HEADS, len(keys), PAGE_TOKENS, DIM, CPU),
        )

    def rows(self, start: int, end: int) -> AttentionRows:
        """One chunk."""
        table = self.table[: -(-end // PAGE_TOKENS)]
        return AttentionRows(np.array([start]), np.array([end - start]), [table])

    def step(self, policy: LayerPolicy, zones: Zones, start: int, end: int, *, write: bool) -> None:
        """What a layer does in one step of the engine, but for its matrix products."""
        rows = self.rows(start, end)
        if write:
            far = policy.far is not Far.NONE
            slots = rows.slots(CPU, bounds=policy.selects, summaries=far)
            keys, values = (x[start:end].transpose(0, 1) for x in (self.keys, self.values))
            self._kept(policy).write(slots, keys, values)
        view = View(ModelPolicy("measured", (policy,)), zones)
        attention = StepAttention([CpuBackend()], [rows], [view], CPU)
        attention.attend(0, self.query[start:end], self.layer, scale=SCALE, window=None)

    def _kept(self, policy: LayerPolicy) -> LayerPages:
        """The pages, with keys in 4 bits where the policy has them kept."""
        kept = policy.selector is Selector.LOW_BIT
        return self.layer if kept else replace(self.layer, four_bit=None)

    def prefill(self, policy: LayerPolicy) -> None:
        """All of it."""
        for start, end in pairwise(range(0, len(self.query) + 1, CHUNK)):
            self.step(policy, NO_ZONES, start, end, write=True)

    def decode(self, policy: LayerPolicy) -> None:
        """Its last tokens, one by one; their keys are there."""
        tokens = len(self.query)
        zones = Zones(tokens - DECODED - 1, tokens - DECODED)
        for position in range(tokens - DECODED, tokens):
            self.step(policy, zones, position, position + 1, write=False)


def prefills() -> Iterator[Row]:
    """One row a length and policy."""
    for tokens in ROUNDS:
        sequence = Sequence(tokens)
        works = {name: partial(sequence.prefill, policy) for name, policy in POLICIES.items()}
        yield from rows_of("prefill", tokens, in_turns(works, ROUNDS[tokens]), NO_ZONES)


def decodes() -> Iterator[Row]:
    """One row a length and policy, for one token."""
    for tokens in DECODES:
        sequence = Sequence(tokens)
        for kept in ("hierarchical", "hybrid-4bit"):
            sequence.prefill(POLICIES[kept])
        works = {
            name: partial(sequence.decode, policy)
            for name, policy in POLICIES.items()
            if name != "hybrid preset"
        }
        yield from rows_of("decode", tokens, in_turns(works, DECODE_ROUNDS), None)


def rows_of(
    work: str, tokens: int, times: Mapping[str, list[float]], zones: Zones | None
) -> Iterator[Row]:
    """The times beside the full one's."""
    steps = DECODED if zones is None else 1
    for name, taken in times.items():
        ratios = [full / own for full, own in zip(times["full"], taken, strict=True)]
        row: Row = {
            "work": f"{work} at {tokens}",
            "policy": name,
            "ms": round(1000 * median(taken) / steps, 2),
            "full's time / its": round(median(ratios), 2),
        }
        if zones is not None:
            policy = ModelPolicy(name, (POLICIES[name],))
            row["keys seen"] = f"{seen_share(policy, zones, tokens, PAGE_TOKENS):.0%}"
        yield row


def in_turns(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each work in each round, after a first one where there are several."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + (rounds > 1)):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if number or rounds == 1:
                times[name].append(time.perf_counter() - started)
    return times


@torch.inference_mode()
def main() -> list[Row]:
    """Run the measurements."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        return [*prefills(), *decodes()]
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    for row in main():
        print(row)
