"""Builds one index while its document is still arriving.

Two loops follow the growing file: one reads, tokenises and cuts passages in a thread;
the other hands whole batches of passages to the encoder, several at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from longspan.server.aio import in_thread, run_both
from longspan.server.index.growing_index import GrowingIndex
from longspan.server.index.growth import Growth
from longspan.server.index.passage_index import PassageIndex
from longspan.server.index.text_pipeline import TextPipeline
from longspan.server.text.passages import Passage
from longspan.server.tracing import names
from longspan.server.tracing.spans import span

READ_BYTES = 64 << 10
BATCH_TEXTS = 32
BATCH_TOKENS = 4096
BATCHES_IN_FLIGHT = 4
PATIENT_MS = 100

Encode = Callable[[Sequence[NDArray[np.uint32]], int], Awaitable[NDArray[np.float32]]]


@dataclass(slots=True)
class BuildProgress:
    """Counters that only grow."""

    tokens: int = 0
    passages: int = 0
    embedded: int = 0


class Build:
    """One run over one document.

    Args:
        growth: the document's bytes; closed by whoever opened it.
        pipeline: a fresh pipeline.
        encode: embeds texts; the second argument is how many milliseconds they may wait.
        dimension: of the vectors.
        threads: where the pipeline runs.
    """

    def __init__(
        self,
        growth: Growth,
        pipeline: TextPipeline,
        encode: Encode,
        *,
        dimension: int,
        threads: Executor,
    ) -> None:
        self._growth = growth
        self._pipeline = pipeline
        self._encode = encode
        self._dimension = dimension
        self._threads = threads
        self._index = GrowingIndex()
        self._more = asyncio.Event()
        self._reading = True
        self._slots = asyncio.Semaphore(BATCHES_IN_FLIGHT)
        self.progress = BuildProgress()

    async def run(self) -> PassageIndex:
        """Follow the document to its end.

        Raises:
            LongspanError: what the encoder or the text raised; nothing goes on behind it.
        """
        await run_both(self._read(), self._embed())
        freeze = partial(
            self._index.freeze, tokens=self._pipeline.tokens, dimension=self._dimension
        )
        return await in_thread(self._threads, freeze)

    async def _read(self) -> None:
        with span(names.TOKENISE) as tokenise:
            pieces = await self._follow()
            tokenise.set_attribute(names.PIECES, pieces)
            tokenise.set_attribute(names.TOKENS, self.progress.tokens)

    async def _follow(self) -> int:
        """Read to the end; returns in how many pieces."""
        offset, pieces = 0, 1
        while await self._growth.wait_beyond(offset):
            size = min(READ_BYTES, self._growth.size_bytes - offset)
            self._add(await in_thread(self._threads, partial(self._feed, offset, size)))
            offset += size
            pieces += 1
        last = await in_thread(self._threads, self._pipeline.finish)
        self._reading = False
        self._add(last)
        return pieces

    def _feed(self, offset: int, size: int) -> list[Passage]:
        return self._pipeline.feed(self._growth.read(offset, size))

    def _add(self, passages: list[Passage]) -> None:
        self._index.add(passages)
        self.progress.tokens = self._pipeline.tokens
        self.progress.passages = len(self._index)
        self._more.set()

    async def _embed(self) -> None:
        with span(names.EMBED) as embed:
            count = await self._embed_batches()
            embed.set_attribute(names.BATCHES, count)
            embed.set_attribute(names.PASSAGES, self.progress.passages)

    async def _embed_batches(self) -> int:
        """Embed to the end; returns in how many batches."""
        count = 0
        async with asyncio.TaskGroup() as batches:
            while await self._passages_wait():
                await self._slots.acquire()
                first, texts = self._index.take(max_texts=BATCH_TEXTS, max_tokens=BATCH_TOKENS)
                batches.create_task(self._embed_batch(first, texts))
                count += 1
        return count

    async def _passages_wait(self) -> bool:
        while not self._index.waiting and self._reading:
            self._more.clear()
            await self._more.wait()
        return self._index.waiting > 0

    async def _embed_batch(self, first: int, texts: list[NDArray[np.uint32]]) -> None:
        try:
            # Once the document is complete somebody waits for its end.
            patience_ms = 0 if self._growth.complete else PATIENT_MS
            self._index.put(first, await self._encode(texts, patience_ms))
            self.progress.embedded = self._index.embedded
        finally:
            self._slots.release()
