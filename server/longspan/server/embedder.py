"""Texts to vectors: the tokenizer of the encoder, and the queue before its workers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from longspan.server.aio import in_thread, raise_first
from longspan.server.errors import InvalidRequest, QuestionTooLong
from longspan.server.index.text_pipeline import TextPipeline
from longspan.server.pool.model_info import ModelInfo
from longspan.server.queue.dispatcher import Dispatcher
from longspan.server.queue.request import RequestInfo

SPECIAL_TOKENS = 2
PASSAGE_TOKENS = 160
BATCH_TEXTS = 32


class Embedder:
    """Embeds on behalf of one request at a time.

    Args:
        tokenizer: the encoder's, without truncation and padding.
        dispatcher: the queue.
        model: what its workers serve.
        threads: where tokenising runs.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        dispatcher: Dispatcher,
        model: ModelInfo,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._tokenizer = tokenizer
        self.dispatcher = dispatcher
        self.model = model
        self.threads = threads

    def pipeline(self) -> TextPipeline:
        """A fresh text pipeline for one document."""
        return TextPipeline(self._tokenizer, passage_tokens=PASSAGE_TOKENS)

    async def tokenise(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Token ids of short texts, without special tokens."""
        return await in_thread(self.threads, lambda: self._tokenise(texts))

    async def tokenise_question(self, question: str) -> NDArray[np.uint32]:
        """Token ids of a question.

        Raises:
            InvalidRequest: nothing in it is text to the model.
            QuestionTooLong: the model reads fewer tokens.
        """
        [ids] = await self.tokenise([question])
        limit, field = self.max_text_tokens, "task.ask.question"
        if len(ids) == 0:
            raise InvalidRequest("must not be empty", field=field)
        if len(ids) > limit:
            raise QuestionTooLong(
                f"the question has {len(ids)} tokens; the model reads at most {limit}", field=field
            )
        return ids

    @property
    def max_text_tokens(self) -> int:
        """Tokens of the longest text, without special ones."""
        return self.model.max_tokens - SPECIAL_TOKENS

    async def encode(
        self, texts: Sequence[NDArray[np.uint32]], request: RequestInfo, max_wait_ms: int
    ) -> NDArray[np.float32]:
        """Unit vectors of one job's texts, [texts, dimension].

        Texts beyond the model's length are cut.
        """
        return await self.dispatcher.encode(
            [text[: self.max_text_tokens] for text in texts],
            request=request,
            max_wait_ms=max_wait_ms,
        )

    async def encode_all(
        self, texts: Sequence[NDArray[np.uint32]], request: RequestInfo
    ) -> NDArray[np.float32]:
        """Unit vectors of any number of texts, at once, [texts, dimension]."""
        batches = [
            texts[start : start + BATCH_TEXTS] for start in range(0, len(texts), BATCH_TEXTS)
        ]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self.encode(batch, request, 0)) for batch in batches]
        except BaseExceptionGroup as failures:
            raise_first(failures)
        empty = np.zeros((0, self.model.dimension), np.float32)
        return np.concatenate([empty, *(task.result() for task in tasks)])

    def _tokenise(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.uint32) for encoding in encodings]
