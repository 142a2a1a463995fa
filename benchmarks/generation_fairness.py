"""Short questions while a 64k-token document is read: time to their first token, and its loss.

    python -m benchmarks generation-fairness

A server with a tiny random Qwen2, asked through the client. Each question brings a text of its
own of about a thousand tokens. While the server reads they come at a pace that gives them about a
sixth of the tokens; idle, twice as fast, still one after the other. The quickest long document
of each kind counts.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.generation_models import TINY, write_model
from benchmarks.generation_overlap import FLAGS, Texts
from benchmarks.server_process import server_process
from longspan.client import Ask, AsyncClient, Completed, Generation, Reasoning, TextDelta

QUESTION = "What does the document say?"
GREEDY = Generation(max_tokens=4, temperature=0)
LONG_TOKENS = 65_536
SHORT_TOKENS = 1024
LONGS = 3
LONGS_ALONE = 2
SHORTS_PER_LONG = 12
PAIR_BYTES = 2
"""The tiny model's tokens are pairs of bytes."""


class Load:
    """Requests of both kinds to one server."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._texts = Texts(PAIR_BYTES)

    async def first_token_s(self, tokens: int) -> float:
        """Seconds from a request's start to its first text."""
        data = self._texts.take(tokens)
        started = time.perf_counter()
        took = 0.0
        async with self._client.analyze(data, Ask(QUESTION, generation=GREEDY)) as stream:
            async for event in stream:
                if isinstance(event, TextDelta | Reasoning) and not took:
                    took = time.perf_counter() - started
                if isinstance(event, Completed):
                    return took or time.perf_counter() - started
        raise RuntimeError("no answer")

    async def shorts(self, count: int, interval_s: float) -> list[float]:
        """Questions at a steady pace, whether or not earlier ones are answered."""
        tasks = []
        try:
            for _ in range(count):
                await asyncio.sleep(interval_s)
                tasks.append(asyncio.create_task(self.first_token_s(SHORT_TOKENS)))
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def both(self, interval_s: float) -> tuple[float, list[float]]:
        """One long document, and questions for as long as it is read."""
        times: list[float] = []

        async def ask_on() -> None:
            async with asyncio.TaskGroup() as asking:
                while True:
                    await asyncio.sleep(interval_s)
                    asking.create_task(self._note(times))

        questions = asyncio.create_task(ask_on())
        long_s = await self.first_token_s(LONG_TOKENS)
        questions.cancel()
        with suppress(asyncio.CancelledError):
            await questions
        return long_s, times

    async def _note(self, times: list[float]) -> None:
        times.append(await self.first_token_s(SHORT_TOKENS))


async def measure(port: int) -> list[dict[str, object]]:
    """One row idle, one loaded."""
    async with AsyncClient(f"127.0.0.1:{port}") as client:
        load = Load(client)
        await load.shorts(3, 0.1)
        alone = [await load.first_token_s(LONG_TOKENS) for _ in range(LONGS_ALONE)]
        interval_s = min(alone) / SHORTS_PER_LONG
        idle = await load.shorts(LONGS * SHORTS_PER_LONG, interval_s / 2)
        busy: list[float] = []
        longs = []
        for _ in range(LONGS):
            long_s, times = await load.both(interval_s)
            longs.append(long_s)
            busy += times
    return [
        {"server": "idle", **quantiles(idle), "long document s": round(min(alone), 2)},
        {
            "server": "reads a long document",
            **quantiles(busy),
            "long document s": round(min(longs), 2),
            "p99 / idle": round(quantile(busy, 0.99) / quantile(idle, 0.99), 2),
            "long document's loss": f"{min(longs) / min(alone) - 1:.0%}",
        },
    ]


def quantile(times: Sequence[float], share: float) -> float:
    """The time that this share of all does not exceed."""
    return sorted(times)[min(int(len(times) * share), len(times) - 1)]


def quantiles(times: Sequence[float]) -> dict[str, object]:
    """Count, median and p99 in milliseconds."""
    return {
        "questions": len(times),
        "p50 ms": round(1000 * quantile(times, 0.5)),
        "p99 ms": round(1000 * quantile(times, 0.99)),
    }


def main() -> list[dict[str, object]]:
    """Run the measurement."""
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(TINY, Path(folder))
        with server_process("--model", str(model), *FLAGS) as port:
            return asyncio.run(measure(port))


if __name__ == "__main__":
    for row in main():
        print(row)
