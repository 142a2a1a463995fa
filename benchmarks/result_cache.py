"""What the result cache saves under a news-like mix, and what a Redis in trouble costs.

    python -m benchmarks result-cache

A server with a small random Qwen2 under the real Qwen tokenizer, asked through the client by a
closed loop of a few clients. Which document and which question a request is about follows Zipf's
law: the document of rank k is asked about with a frequency of 1 / k^s.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean

from benchmarks.generation_models import QWEN_VOCABULARY, ModelSize, write_model
from benchmarks.generation_overlap import Texts
from benchmarks.result_cache_trouble import trouble
from benchmarks.server_process import server_process
from longspan.client import AsyncClient, Completed, Generation, RetryPolicy

# Quick beside any model that is of use: the better the model, the more an answer saves.
MODEL = ModelSize(
    hidden=128, intermediate=2048, layers=2, heads=2, kv_heads=1, vocabulary=QWEN_VOCABULARY
)
DOCUMENTS = 200
DOCUMENT_TOKENS = 800
QUESTIONS = (
    "What happened?",
    "Who is concerned?",
    "What do the numbers say?",
    "What will come next?",
)
REQUESTS = 2000
CLIENTS = 4
EXPONENT = 1.05
SEED = 1
GREEDY = Generation(max_tokens=24, temperature=0)
FLAGS = ("--encoder", "none", "--kv-memory", "1GiB", "--dtype", "float32", "--kv-disk", "0")
ONCE = RetryPolicy(attempts=1)
Row = dict[str, object]
Pair = tuple[int, int]


def mix() -> list[Pair]:
    """The requests, as numbers of a document and a question."""
    rng = random.Random(SEED)
    documents = rng.choices(range(DOCUMENTS), _zipf(DOCUMENTS), k=REQUESTS)
    questions = rng.choices(range(len(QUESTIONS)), _zipf(len(QUESTIONS)), k=REQUESTS)
    return list(zip(documents, questions, strict=True))


def _zipf(count: int) -> list[float]:
    return [rank**-EXPONENT for rank in range(1, count + 1)]


class Asked:
    """What a closed loop of clients met."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.ends: list[Completed] = []

    async def run(self, client: AsyncClient, ids: Sequence[str], pairs: Sequence[Pair]) -> None:
        """All requests; each client asks its next when its last is answered."""
        waiting = iter(pairs)
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._ask(client, ids, waiting))

    async def _ask(self, client: AsyncClient, ids: Sequence[str], waiting: Iterator[Pair]) -> None:
        for document, question in waiting:
            started = time.perf_counter()
            stream = client.prompt(ids[document], QUESTIONS[question], generation=GREEDY)
            async with stream:
                self.ends.append((await stream.result()).completed)
            self.seconds.append(time.perf_counter() - started)

    def row(self, name: str, took_s: float) -> Row:
        """One line of the table."""
        levels = [end.cache.level for end in self.ends if end.cache is not None]
        hits = [level for level in levels if level is not None]
        ordered = sorted(self.seconds)
        return {
            "case": name,
            "requests": len(ordered),
            "hit rate": round(len(hits) / len(ordered), 3),
            "hits by level": _counted([level.value for level in hits]),
            "mean ms": round(mean(ordered) * 1000, 2),
            "p50 ms": round(ordered[len(ordered) // 2] * 1000, 2),
            "p99 ms": round(ordered[len(ordered) * 99 // 100] * 1000, 2),
            "requests/s": round(len(ordered) / took_s, 1),
        }


def _counted(names: Sequence[str]) -> str:
    return ", ".join(f"{name} {names.count(name)}" for name in sorted(set(names)))


async def measure(port: int, name: str, pairs: Sequence[Pair]) -> Row:
    """The mix on documents that are stored and have not been read."""
    texts, asked = Texts(), Asked()
    async with AsyncClient(f"127.0.0.1:{port}", retry=ONCE) as client:
        ids = [
            (await client.upload(texts.take(DOCUMENT_TOKENS))).document_id for _ in range(DOCUMENTS)
        ]
        print(f"{name}: {len(ids)} documents stored", flush=True)
        started = time.perf_counter()
        await asked.run(client, ids, pairs)
        return asked.row(name, time.perf_counter() - started)


def main() -> list[Row]:
    """Run the measurement."""
    pairs = mix()
    with tempfile.TemporaryDirectory() as name:
        flags = ("--model", str(write_model(MODEL, Path(name) / "model")), *FLAGS)
        with server_process(*flags) as port:
            without = asyncio.run(measure(port, "without the cache", pairs))
        with server_process(*flags, results=True) as port:
            cached = asyncio.run(measure(port, "with the cache", pairs))
        for row in (without, cached):
            row["times better"] = round(
                float(str(without["mean ms"])) / float(str(row["mean ms"])), 2
            )
            row["mix"] = (
                f"Zipf s = {EXPONENT} over {DOCUMENTS} documents of about {DOCUMENT_TOKENS} tokens "
                f"and {len(QUESTIONS)} questions, {CLIENTS} clients"
            )
        return [without, cached, *trouble(flags, Path(name) / "redis")]
