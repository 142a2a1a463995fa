"""Tokenises one document while it arrives, into the prompt of a sequence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from longspan.server.aio import cancel_and_wait, in_thread
from longspan.server.index.growth import Growth
from longspan.server.text.tokeniser import StreamingTokeniser, TokenPiece
from longspan.server.text.utf8 import IncrementalUtf8
from longspan.server.tracing import names
from longspan.server.tracing.spans import span

READ_BYTES = 64 << 10


class Reading:
    """One run over one document; the ids equal those of the whole text, however it arrives.

    Attributes:
        tokens: of the document so far.

    Args:
        growth: the document's bytes; closed by whoever opened it.
        tokenizer: of documents: it reads no control tokens.
        take: is given the ids in order; what it raises ends the run.
        threads: where tokenising runs.
    """

    def __init__(
        self,
        growth: Growth,
        tokenizer: Tokenizer,
        take: Callable[[NDArray[np.uint32]], None],
        threads: Executor,
    ) -> None:
        self._growth = growth
        self._utf8 = IncrementalUtf8()
        self._tokeniser = StreamingTokeniser(tokenizer)
        self._take = take
        self._threads = threads
        self._pieces = 0
        self.tokens = 0

    async def run(self) -> None:
        """Follow the document to its end.

        Raises:
            InvalidUtf8: the document is not text.
            LongspanError: what ``take`` raised.
        """
        with span(names.TOKENISE) as tokenise:
            try:
                await self._follow()
            finally:
                tokenise.set_attribute(names.PIECES, self._pieces)
                tokenise.set_attribute(names.TOKENS, self.tokens)

    async def _follow(self) -> None:
        offset = 0
        while await self._growth.wait_beyond(offset):
            size = min(READ_BYTES, self._growth.size_bytes - offset)
            self._add(await in_thread(self._threads, partial(self._feed, offset, size)))
            offset += size
        self._add(await in_thread(self._threads, self._finish))

    def _feed(self, offset: int, size: int) -> Sequence[TokenPiece]:
        return self._tokeniser.feed(self._utf8.decode(self._growth.read(offset, size)))

    def _finish(self) -> Sequence[TokenPiece]:
        self._utf8.finish()
        return self._tokeniser.finish()

    def _add(self, pieces: Sequence[TokenPiece]) -> None:
        self._pieces += 1
        for piece in pieces:
            self._take(piece.ids)
            self.tokens += len(piece.ids)


class RunningReading:
    """A reading behind an upload; stopped when nobody wants it any more."""

    def __init__(self, growth: Growth, reading: Reading) -> None:
        self._growth = growth
        self._task = asyncio.create_task(reading.run())

    def check(self) -> None:
        """Raise what the reading raised, if it has failed already."""
        if self._task.done() and not self._task.cancelled():
            self._task.result()

    async def result(self) -> None:
        """Wait for the end of the document; raises what the reading raised."""
        await asyncio.shield(self._task)

    async def release(self) -> None:
        """Stop, wait until it has stopped, and let go of the file."""
        await cancel_and_wait(self._task)
        self._growth.close()
