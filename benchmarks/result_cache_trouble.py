"""What requests meet while the Redis of the result cache hangs, dies and comes back."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.generation_overlap import Texts
from benchmarks.redis_process import RedisProcess, redis_process
from benchmarks.server_process import server_process
from longspan.client import AsyncClient, CacheLevel, Generation, LongspanError, RetryPolicy

PAIRS = 20
CLIENTS = 4
PHASE_S = 8.0
# The breaker opens after three requests that waited for Redis; this is not yet counted.
SETTLING_S = 1.0
DOCUMENT_TOKENS = 800
GREEDY = Generation(max_tokens=24, temperature=0)
Row = dict[str, object]


class Load:
    """Clients that ask a few questions again and again, and note how long each took."""

    def __init__(self, client: AsyncClient, document: str) -> None:
        self._client = client
        self._document = document
        self._stopped = False
        self._asking: list[asyncio.Task[None]] = []
        self.taken: list[tuple[float, float, CacheLevel | None]] = []
        self.failed: list[float] = []

    async def start(self) -> None:
        """Fill the cache, then ask all the time."""
        for number in range(PAIRS):
            await self._one(number)
        self._asking = [asyncio.create_task(self._ask(number)) for number in range(CLIENTS)]

    async def stop(self) -> None:
        """Ask no more."""
        self._stopped = True
        await asyncio.gather(*self._asking)

    async def _ask(self, number: int) -> None:
        while not self._stopped:
            number += 1
            await self._one(number)

    async def _one(self, number: int) -> None:
        started = time.perf_counter()
        question = f"Question {number % PAIRS}?"
        try:
            async with self._client.prompt(self._document, question, generation=GREEDY) as stream:
                end = (await stream.result()).completed
        except LongspanError:
            self.failed.append(started)
            return
        level = None if end.cache is None else end.cache.level
        self.taken.append((started, time.perf_counter() - started, level))

    def row(self, name: str, began: float, ended: float) -> Row:
        """What was met in a phase; times without its beginning."""
        inside = [one for one in self.taken if began <= one[0] < ended]
        settled = sorted(took for at, took, _ in inside if at >= began + SETTLING_S)
        levels = [level.value for _, _, level in inside if level is not None]
        return {
            "case": f"Redis: {name}",
            "requests": len(inside),
            "failed": sum(began <= at < ended for at in self.failed),
            "hit rate": round(len(levels) / len(inside), 3),
            "hits by level": ", ".join(f"{n} {levels.count(n)}" for n in sorted(set(levels))),
            "mean ms": round(sum(settled) / len(settled) * 1000, 2),
            "p50 ms": round(settled[len(settled) // 2] * 1000, 2),
            "p99 ms": round(settled[len(settled) * 99 // 100] * 1000, 2),
        }


async def measure(port: int, redis: RedisProcess) -> list[Row]:
    """One row a phase."""
    phases = (
        ("serving", lambda: None),
        ("stopped (SIGSTOP)", lambda: redis.send(signal.SIGSTOP)),
        ("continued", lambda: redis.send(signal.SIGCONT)),
        ("killed", redis.kill),
        ("started again", redis.start),
    )
    rows: list[Row] = []
    async with AsyncClient(f"127.0.0.1:{port}", retry=RetryPolicy(attempts=1)) as client:
        stored = await client.upload(Texts().take(DOCUMENT_TOKENS))
        load = Load(client, stored.document_id)
        await load.start()
        for name, act in phases:
            began = time.perf_counter()
            await asyncio.to_thread(act)
            await asyncio.sleep(PHASE_S)
            rows.append(load.row(name, began, time.perf_counter()))
        await load.stop()
    healthy = float(str(rows[0]["p99 ms"]))
    for row in rows:
        row["added p99 ms"] = round(float(str(row["p99 ms"])) - healthy, 2)
    return rows


def trouble(flags: Sequence[str], folder: Path) -> list[Row]:
    """The rows; none where there is no Redis."""
    try:
        with (
            redis_process(folder) as redis,
            server_process(*flags, "--result-cache-redis", redis.url, results=True) as port,
        ):
            return asyncio.run(measure(port, redis))
    except FileNotFoundError as error:
        print(f"skipped: {error}")
        return []
