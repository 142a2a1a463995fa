"""What the server keeps, through both clients and the command."""

from __future__ import annotations

import asyncio
from collections import deque

from longspan.client import (
    AsyncClient,
    Breaker,
    CacheCleared,
    CacheStats,
    CacheVerified,
    Client,
    DocumentId,
    KvHolding,
    KvTierStats,
    Rebuilt,
    ResultCacheStats,
    TextDelta,
    WorkerStats,
)
from longspan.client._cli.kept import age_text, size_text
from longspan.v1 import cache_service_pb2 as pb
from longspan.v1 import document_pb2
from longspan.v1 import inference_service_pb2 as inference
from tests.client.callers import QUICK
from tests.client.command import longspan
from tests.client.peer import Peer, PlainCut, delta, running_peer

TIERS = pb.KvTierStats(
    ram_bytes=1 << 20,
    ram_budget_bytes=4 << 20,
    disk_bytes=3 << 29,
    disk_budget_bytes=16 << 30,
    disk_pages=1234,
    loaded_pages=5,
    stored_pages=1300,
    evicted_pages=66,
    misses={"gone": 2, "checksum": 1},
    breaker=pb.BREAKER_STATE_HALF_OPEN,
)
HELD = document_pb2.KvHolding(pool_pages=7, disk_pages=1200, disk_bytes=3 << 20, hits=1500)
VALUES = KvTierStats(
    ram_bytes=1 << 20,
    ram_budget_bytes=4 << 20,
    disk_bytes=3 << 29,
    disk_budget_bytes=16 << 30,
    disk_pages=1234,
    loaded_pages=5,
    stored_pages=1300,
    evicted_pages=66,
    misses={"gone": 2, "checksum": 1},
    breaker=Breaker.HALF_OPEN,
)
ANSWERS = pb.ResultCacheStats(
    hits={"memory": 8, "flight": 4},
    misses=5,
    stored=6,
    memory_bytes=1 << 20,
    disk_answers=3,
    disk_bytes=2 << 20,
    disk_budget_bytes=256 << 20,
    disk_breaker=pb.BREAKER_STATE_CLOSED,
    redis_breaker=pb.BREAKER_STATE_OPEN,
)


def _fill(peer: Peer) -> None:
    workers = [pb.WorkerStats(name="worker-0", kv=TIERS), pb.WorkerStats(name="worker-1")]
    peer.script.stats = pb.StatsResponse(kv=TIERS, workers=workers, held=HELD, result_cache=ANSWERS)


async def test_both_clients_see_check_and_clear() -> None:
    expected = (
        CacheStats(
            kv=VALUES,
            workers=(WorkerStats("worker-0", VALUES), WorkerStats("worker-1", None)),
            held=KvHolding(pool_pages=7, disk_pages=1200, disk_bytes=3 << 20, hits=1500),
            answers=ResultCacheStats(
                hits={"memory": 8, "flight": 4},
                misses=5,
                stored=6,
                memory_bytes=1 << 20,
                disk_answers=3,
                disk_bytes=2 << 20,
                disk_budget_bytes=256 << 20,
                disk_breaker=Breaker.CLOSED,
                redis_breaker=Breaker.OPEN,
            ),
        ),
        CacheVerified(checked=1200, damaged=2, missing=1, unknown=3, bytes=5 << 20),
        CacheCleared(pages=1200, bytes=3 << 20, answers=7),
    )

    def blocking(target: str) -> tuple[CacheStats, CacheVerified, CacheCleared]:
        with Client(target, retry=QUICK) as client:
            return client.cache.stats(), client.cache.verify(), client.cache.clear()

    async with running_peer() as (peer, target), AsyncClient(target, retry=QUICK) as client:
        _fill(peer)
        cache = client.cache
        peer.script.failures = deque([PlainCut()])
        assert (await cache.stats(), await cache.verify(), await cache.clear()) == expected
        assert await asyncio.to_thread(blocking, target) == expected


async def test_a_document_says_where_its_pages_lie_or_that_it_does_not_know() -> None:
    async with running_peer() as (peer, target), AsyncClient(target, retry=QUICK) as client:
        unknown, known = peer.add(b"one"), peer.add(b"two")
        peer.documents[known][0].kv.disk_pages = 3
        peer.documents[known][0].kv.age.FromMilliseconds(1500)
        assert (await client.get(unknown)).kv is None
        assert (await client.get(known)).kv == KvHolding(disk_pages=3, age_s=1.5)


async def test_a_rebuilt_document_is_told_once_though_the_answer_breaks() -> None:
    rebuilt = inference.Rebuilt(document_id="doc_1", tokens=512)
    async with running_peer() as (peer, target), AsyncClient(target, retry=QUICK) as client:
        document = peer.add(b"text")
        peer.script.answers = deque([[{"rebuilt": rebuilt}, delta("a"), delta("b")]])
        peer.script.answer_failures = deque([(2, PlainCut())])
        async with client.ask(document, "?") as stream:
            events = [event async for event in stream if isinstance(event, Rebuilt | TextDelta)]
    assert events == [Rebuilt(DocumentId("doc_1"), 512), TextDelta("a"), TextDelta("b")]
    assert peer.calls == ["Generate", "Generate"]


async def test_the_command_shows_checks_and_clears() -> None:
    async with running_peer() as (peer, target):
        empty = await longspan("cache", server=target)
        assert empty.out.startswith("no KV pages")
        _fill(peer)
        shown = await longspan("cache", "stats", server=target)
        assert shown.out.splitlines() == [
            "answers   12 hits (4 flight, 8 memory), 5 misses, 6 stored",
            "          1 MiB of memory; 2 MiB of 256 MiB disk, breaker closed; Redis, breaker open",
            "RAM       1 MiB of 4 MiB",
            "disk      1.5 GiB of 16 GiB, 1,234 pages; breaker half open",
            "pages     5 loaded, 1,300 stored, 66 evicted since the start",
            "misses    1 checksum, 2 gone",
            "worker-0  1 MiB RAM; 5 loaded, 1,300 stored, 66 evicted since the start; "
            "breaker half open",
            "worker-1  does not answer",
            "yours     7 pool, 1,200 disk; 1,500 hits",
        ]
        verified = await longspan("cache", "verify", server=target)
        assert verified.out == (
            "1,200 files read, 5 MiB; 2 damaged and 3 unknown removed, 1 missing\n"
        )
        cleared = await longspan("cache", "clear", server=target)
        assert cleared.out == "1,200 pages dropped, 3 MiB of disk; 7 answers dropped\n"
        told = await longspan("cache", "--json", server=target)
        [event] = told.events
        assert event["event"] == "cache_stats"
        assert event["kv"]["breaker"] == "half_open"
        assert event["workers"][1] == {"name": "worker-1", "kv": None}


async def test_documents_are_a_table_of_where_their_pages_lie() -> None:
    async with running_peer() as (peer, target):
        plain = peer.add(b"x" * 2500, "a name that is much longer than its column")
        known = peer.add(b"two", "two\x1b[31m")
        peer.documents[known][0].kv.CopyFrom(HELD)
        peer.documents[known][0].kv.age.FromSeconds(7200)
        listed = await longspan("docs", server=target)
        head, first, second = listed.out.splitlines()
        assert head.split() == ["id", "name", "size", "tokens", "KV", "pages", "used", "hits"]
        assert first.split()[0] == plain
        assert first.split()[-6:] == ["2.44", "KiB", "625", "-", "-", "-"]
        assert " ".join(second.split()) == (
            f"{known} two[31m 3 bytes - 7 pool, 1,200 disk 2 h 1,500"
        )
        brief = await longspan("docs", "-q", server=target)
        assert brief.out.split() == [plain, known]


def test_sizes_and_ages_have_their_largest_unit() -> None:
    sizes = (0, 999, 1000, 1 << 20, 3 << 29, 1 << 60)
    assert [size_text(size) for size in sizes] == [
        "0 bytes",
        "999 bytes",
        "0.977 KiB",
        "1 MiB",
        "1.5 GiB",
        "1.05e+06 TiB",
    ]
    ages = (0.2, 59.0, 60.0, 3601.0, 90_000.0)
    assert [age_text(age) for age in ages] == ["0 s", "59 s", "1 min", "1 h", "1 d"]
