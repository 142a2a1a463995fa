"""What several workers tell of pages, put together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.identity import is_own_name, new_upload_id
from longspan.server.kv.holdings import Breaker, Held, TierStats, by_subject, together, total
from longspan.server.queue.job import Subject

COUNTS = st.integers(0, 1000)
HOLDINGS = st.builds(lambda pool, ram, own_hits: (pool, ram, own_hits), COUNTS, COUNTS, COUNTS)


@given(
    workers=st.lists(HOLDINGS, min_size=1, max_size=4),
    disk=st.tuples(st.integers(1, 1000), COUNTS, COUNTS, st.floats(0, 1e6)),
)
def test_a_shared_disk_counts_once_and_pools_and_ram_add_up(
    workers: list[tuple[int, int, int]], disk: tuple[int, int, int, float]
) -> None:
    pages, size_bytes, disk_hits, age_s = disk
    told = [
        pb.Holdings(
            holdings=[
                pb.Holding(
                    tenant="a",
                    subject="doc",
                    pool_pages=pool,
                    ram_pages=ram,
                    disk_pages=pages,
                    disk_bytes=size_bytes,
                    hits=max(own_hits, disk_hits),
                    disk_hits=disk_hits,
                    age_s=age_s,
                ),
                pb.Holding(tenant="b", subject="doc", pool_pages=1),
            ]
        )
        for pool, ram, own_hits in workers
    ]
    held = by_subject(told, "a")
    assert held == {
        Subject("doc"): Held(
            pool_pages=sum(pool for pool, _, _ in workers),
            ram_pages=sum(ram for _, ram, _ in workers),
            disk_pages=pages,
            disk_bytes=size_bytes,
            hits=disk_hits or sum(own for _, _, own in workers),
            age_s=age_s,
        )
    }


def test_a_page_that_lies_in_a_pool_alone_has_no_age() -> None:
    told = [pb.Holdings(holdings=[pb.Holding(tenant="a", subject="doc", pool_pages=1)])]
    assert by_subject(told, "a")[Subject("doc")].age_s is None


def test_subjects_add_up_and_the_youngest_use_counts() -> None:
    parts = [Held(disk_pages=1, age_s=5.0), Held(disk_pages=2, age_s=2.0), Held(pool_pages=3)]
    assert total(parts) == Held(pool_pages=3, disk_pages=3, age_s=2.0)
    assert total([]) == Held()


def test_tiers_of_workers_on_one_disk() -> None:
    one = pb.TierStats(
        ram_bytes=1,
        ram_budget_bytes=10,
        disk_bytes=100,
        disk_budget_bytes=1000,
        disk_pages=7,
        loaded_pages=1,
        stored_pages=2,
        evicted_pages=3,
        misses={"gone": 1, "io": 2},
        breaker="half open",
    )
    # It has not heard of the latest files.
    two = pb.TierStats(
        ram_bytes=2,
        ram_budget_bytes=10,
        disk_bytes=90,
        disk_budget_bytes=1000,
        disk_pages=6,
        loaded_pages=10,
        misses={"gone": 5},
        breaker="closed",
    )
    assert together([TierStats.of(one), TierStats.of(two)]) == TierStats(
        ram_bytes=3,
        ram_budget_bytes=20,
        disk_bytes=100,
        disk_budget_bytes=1000,
        disk_pages=7,
        loaded_pages=11,
        stored_pages=2,
        evicted_pages=3,
        misses={"gone": 6, "io": 2},
        breaker=Breaker.HALF_OPEN,
    )
    assert together([]) == TierStats()


def test_only_names_of_our_own_making_are_ours() -> None:
    assert is_own_name(new_upload_id())
    assert is_own_name("doc_" + "0" * 24)
    for name in ("", "doc_1", "up_" + "0" * 31, "doc_" + "g" * 24, "x doc_" + "0" * 24):
        assert not is_own_name(name)
