"""Hit rates of the page cache under real request traces, by capacity and eviction policy.

    python -m benchmarks traces

Mooncake's conversation and synthetic traces (FAST 2025) on a virtual clock: every request arrives
at its time and is computed at once, so the figures depend on no machine. Capacities are shares
of the trace's distinct blocks of 512 tokens. A block is found where all blocks before it are.
The traces (github.com/kvcache-ai/Mooncake, FAST25-release/traces, compressed with zstd) are looked
for in ``../shared/data/traces``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.trace_replay.candidates import (
    FrequencyAged,
    GreedyDualSizeFrequency,
    HeadsFirst,
    RecencyAndFrequency,
    Segmented,
)
from benchmarks.trace_replay.index import RankedIndex
from benchmarks.trace_replay.optimum import replay_endless, replay_optimum
from benchmarks.trace_replay.plot import write_plot
from benchmarks.trace_replay.replay import Cache, TwoTiers, replay
from benchmarks.trace_replay.s3_fifo import S3Fifo
from benchmarks.trace_replay.tally import Tally
from benchmarks.trace_replay.trace import BLOCK_PAGES, Request, load, path_of, working_set
from longspan.blobstore.eviction import LeastRecentlyUsed
from longspan.worker.kv.pages import PageTable

TRACES = ("conversation", "synthetic")
SHARES = (0.1, 0.25, 0.5, 1.0)
POOL_SHARE = 0.05
ENDLESS, OPTIMUM = "endless", "Belady's optimum"
PLOT = Path(__file__).resolve().parents[1] / "results" / "traces.png"
Row = dict[str, object]

POLICIES: dict[str, Callable[[int], Cache]] = {
    "LRU (the store's)": lambda blocks: RankedIndex(blocks, LeastRecentlyUsed()),
    "frequency, aged": lambda blocks: RankedIndex(blocks, FrequencyAged()),
    "GDSF": lambda blocks: RankedIndex(blocks, GreedyDualSizeFrequency()),
    "heads first, 1 s a block": lambda blocks: RankedIndex(blocks, HeadsFirst(1.0)),
    "recency + 60 s a doubling": lambda blocks: RankedIndex(blocks, RecencyAndFrequency(60)),
    "recency + 300 s a doubling": lambda blocks: RankedIndex(blocks, RecencyAndFrequency(300)),
    "segmented LRU": lambda blocks: RankedIndex(blocks, Segmented()),
    "S3-FIFO": S3Fifo,
}


def main() -> list[Row]:
    """Replay both traces, and draw what came out; one row that says why where it cannot."""
    if not all(path_of(name).exists() for name in TRACES):
        return [{"trace": "skipped: the traces are not on this machine"}]
    rows = [row for name in TRACES for row in rows_of(name, load(name))]
    write_plot(PLOT, rows)
    return rows


def rows_of(name: str, requests: Sequence[Request]) -> Iterator[Row]:
    """All rows of one trace."""
    blocks = working_set(requests)
    row = partial(_row, name)
    yield row(ENDLESS, None, replay_endless(requests))
    for share in SHARES:
        capacity = int(share * blocks)
        yield row(OPTIMUM, share, replay_optimum(requests, capacity))
        for policy, make in POLICIES.items():
            yield row(policy, share, replay(requests, make(capacity)))
        yield _tiers_row(row, "page pool alone", share, requests, _pool(capacity))
    for told in (False, True):
        for share in SHARES:
            tiers = _pool(int(POOL_SHARE * blocks))
            tiers.ssd = RankedIndex(int(share * blocks) * BLOCK_PAGES, LeastRecentlyUsed())
            tiers.told = told
            title = f"pool of {POOL_SHARE:.0%} + SSD" + ", told of pool hits" * told
            yield _tiers_row(row, title, share, requests, tiers)


def _pool(blocks: int) -> TwoTiers:
    return TwoTiers(PageTable(blocks * BLOCK_PAGES))


def _tiers_row(
    row: Callable[[str, float | None, Tally], Row],
    cache: str,
    share: float,
    requests: Sequence[Request],
    tiers: TwoTiers,
) -> Row:
    for request in requests:
        tiers.serve(request)
    pages = tiers.tally.blocks * BLOCK_PAGES
    return row(cache, share, tiers.tally) | {
        "pool %": _percent(tiers.pool_pages / pages),
        "SSD %": _percent(tiers.ssd_pages / pages),
    }


def _row(trace: str, cache: str, share: float | None, tally: Tally) -> Row:
    return {
        "trace": trace,
        "cache": cache,
        "capacity %": "" if share is None else round(100 * share),
        "blocks %": _percent(tally.block_rate),
        "tokens %": _percent(tally.token_rate),
        "computing saved %": _percent(tally.work_rate),
    }


def _percent(rate: float) -> float:
    return round(100 * rate, 2)
