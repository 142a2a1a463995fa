"""The replay of traces, against answers worked out by hand and plain ways to the same figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from benchmarks.trace_replay.candidates import (
    FrequencyAged,
    GreedyDualSizeFrequency,
    HeadsFirst,
    RecencyAndFrequency,
    Segmented,
)
from benchmarks.trace_replay.index import RankedIndex
from benchmarks.trace_replay.measure import ENDLESS, POLICIES, rows_of
from benchmarks.trace_replay.optimum import replay_endless, replay_optimum
from benchmarks.trace_replay.plot import write_plot
from benchmarks.trace_replay.replay import TwoTiers, replay
from benchmarks.trace_replay.s3_fifo import S3Fifo
from benchmarks.trace_replay.trace import BLOCK_PAGES, Request, make_requests, working_set
from hypothesis import given, settings
from hypothesis import strategies as st

from longspan.blobstore.eviction import Entry, EvictionPolicy, LeastRecentlyUsed
from longspan.worker.kv.pages import OutOfPages, PageTable

ALL: list[EvictionPolicy] = [
    LeastRecentlyUsed(),
    FrequencyAged(),
    GreedyDualSizeFrequency(),
    HeadsFirst(1.0),
    RecencyAndFrequency(60.0),
    Segmented(),
]
LONGEST = 5


def requests_of(*prompts: Sequence[int], tokens: int | None = None) -> list[Request]:
    """Requests a second apart, of full blocks unless told otherwise."""
    return make_requests(
        {
            "timestamp": 1000 * second,
            "input_length": tokens or 512 * len(blocks),
            "hash_ids": list(blocks),
        }
        for second, blocks in enumerate(prompts)
    )


# Paths down a tree of three children a node: prompts that share beginnings of any length.
prompts = st.lists(
    st.lists(st.integers(0, 2), min_size=1, max_size=LONGEST), min_size=1, max_size=25
).map(lambda paths: requests_of(*paths))


def two_tiers(requests: Sequence[Request], pool: int, ssd: int, *, told: bool = False) -> TwoTiers:
    """What a pool and an SSD of so many blocks find."""
    index = RankedIndex(ssd * BLOCK_PAGES, LeastRecentlyUsed())
    tiers = TwoTiers(PageTable(pool * BLOCK_PAGES), index, told)
    for request in requests:
        tiers.serve(request)
        tiers.pool.check()
        assert tiers.pool.used == 0
        assert index.bytes <= ssd * BLOCK_PAGES
    return tiers


@pytest.mark.parametrize(
    ("capacity", "found"),
    [
        (1, 0),
        (2, 2),  # both for the second prompt; 3 and 4 take the room
        (4, 4),  # both for the last prompt too
        (9, 4),
    ],
)
def test_known_answers(capacity: int, found: int) -> None:
    requests = requests_of([1, 2], [1, 2], [3, 4], [1, 2])
    tally = replay(requests, RankedIndex(capacity, LeastRecentlyUsed()))
    assert (tally.blocks, tally.found_blocks) == (8, found)
    assert (tally.tokens, tally.found_tokens) == (8 * 512, found * 512)


def test_blocks_behind_a_gap_are_not_found() -> None:
    [request] = requests_of([1, 2, 3])
    index = RankedIndex(3, LeastRecentlyUsed())
    for depth in (0, 2):
        index.put(request.blocks[depth], Entry(1, depth=depth), 0.0)
    assert replay([request], index).found_blocks == 1
    assert replay([request], index).found_blocks == 3


def test_blocks_of_other_beginnings_differ_and_the_last_one_counts_its_tokens() -> None:
    one, other = requests_of([1, 2], [3, 2], tokens=513)
    assert set(one.pages).isdisjoint(other.pages)
    assert len(one.pages) == BLOCK_PAGES * len(one.blocks) == 4
    assert list(one.tokens) == [512, 1]


def test_pages_that_the_pool_gave_away_come_from_the_ssd() -> None:
    requests = requests_of([1, 2], [3, 4], [1, 2], [1, 2])
    tiers = two_tiers(requests, pool=2, ssd=4)
    assert tiers.tally.found_blocks == 4
    assert (tiers.pool_pages, tiers.ssd_pages) == (2 * BLOCK_PAGES, 2 * BLOCK_PAGES)


def test_an_ssd_told_of_pool_hits_keeps_what_the_pool_was_asked_for() -> None:
    # The pool holds 1 until 4 comes; 4 takes the place of 1 on the SSD too, unless it was told.
    requests = requests_of([1], [2], [1], [3], [4], [1])
    assert two_tiers(requests, pool=2, ssd=3).tally.found_blocks == 1
    assert two_tiers(requests, pool=2, ssd=3, told=True).tally.found_blocks == 2


def test_a_prompt_larger_than_the_pool_is_refused() -> None:
    with pytest.raises(OutOfPages):
        two_tiers(requests_of([1, 2, 3]), pool=2, ssd=9)


@given(requests=prompts)
def test_without_evictions_all_that_was_seen_is_found(requests: list[Request]) -> None:
    seen: set[tuple[bytes, ...]] = set()
    expected = 0
    for request in requests:
        beginnings = [tuple(request.pages[:end]) for end in range(2, len(request.pages) + 1, 2)]
        expected += sum(beginning in seen for beginning in beginnings)
        seen.update(beginnings)
    assert working_set(requests) == len(seen)
    assert replay_endless(requests).found_blocks == expected
    for policy in ALL:
        assert replay(requests, RankedIndex(len(seen), policy)).found_blocks == expected
    assert replay(requests, S3Fifo(len(seen))).found_blocks == expected
    assert replay_optimum(requests, len(seen)).found_blocks == expected
    assert two_tiers(requests, LONGEST, len(seen)).tally.found_blocks == expected


@given(requests=prompts, capacity=st.integers(1, 30))
def test_no_cache_exceeds_its_capacity_or_the_optimum(
    requests: list[Request], capacity: int
) -> None:
    best = replay_optimum(requests, capacity).found_blocks
    assert best <= replay_endless(requests).found_blocks
    for policy in ALL:
        index = RankedIndex(capacity, policy)
        for request in requests:
            replay([request], index)
            assert index.bytes == len(index) <= capacity
        assert replay(requests, RankedIndex(capacity, policy)).found_blocks <= best
    fifo = S3Fifo(capacity)
    assert replay(requests, fifo).found_blocks <= best
    assert len(fifo) <= capacity


@given(sizes=st.lists(st.integers(1, 12), max_size=40))
def test_bytes_count_not_entries(sizes: list[int]) -> None:
    index = RankedIndex(10, LeastRecentlyUsed())
    for number, size in enumerate(sizes):
        stored = index.put(number.to_bytes(32, "little"), Entry(size), float(number))
        assert stored == (size <= 10)
        assert index.bytes <= 10


def test_s3_fifo_keeps_what_was_used_or_came_back() -> None:
    fifo = S3Fifo(4)  # a small queue of one
    names = {name: name.encode() * 32 for name in "abcdefgh"}

    def put(*new: str) -> None:
        for name in new:
            fifo.put(names[name], Entry(1), 0.0)

    def held() -> str:
        return "".join(name for name, key in names.items() if key in fifo)

    put(*"abcd")
    fifo.use(names["a"], 0.0)
    put("e")  # a moves on, b becomes a ghost
    assert held() == "acde"
    put("b")  # straight to the main queue; c goes instead
    assert held() == "abde"
    put(*"fgh")  # d, e and f leave the small queue
    assert held() == "abgh"
    fifo.use(names["a"], 0.0)
    put("d")  # a ghost; g goes instead
    put("e")  # one more; h goes instead
    assert held() == "abde"
    put("c")  # the small queue is empty: a was used, so it stays and b goes
    assert held() == "acde"


@settings(max_examples=50)
@given(requests=prompts, pool=st.integers(LONGEST, 12))
def test_the_pool_alone_finds_what_the_least_recently_used_index_finds(
    requests: list[Request], pool: int
) -> None:
    tiers = TwoTiers(PageTable(pool * BLOCK_PAGES))
    for request in requests:
        tiers.serve(request)
    index = RankedIndex(pool, LeastRecentlyUsed())
    assert tiers.tally.found_blocks == replay(requests, index).found_blocks


def test_rows_and_plot(tmp_path: Path) -> None:
    requests = requests_of(*[[number % 40, 7] for number in range(0, 400, 3)])
    rows = list(rows_of("made up", requests))
    caches = [row["cache"] for row in rows]
    assert caches.count(ENDLESS) == 1
    assert {caches.count(policy) for policy in POLICIES} == {4}
    assert json.loads(json.dumps(rows)) == rows
    path = tmp_path / "made-up.png"
    write_plot(path, rows)
    assert path.read_bytes().startswith(b"\x89PNG")
