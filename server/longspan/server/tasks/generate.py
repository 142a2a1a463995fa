"""One task of one request, written by a decoder that reads the whole documents."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256

from longspan.server.aio import in_thread
from longspan.server.decoder.decoder import Decoder
from longspan.server.decoder.options import GenerationOptions
from longspan.server.decoder.quotes import QuoteScanner
from longspan.server.decoder.reading import Reading
from longspan.server.decoder.reasoning import Reasoning, ReasoningSplitter
from longspan.server.decoder.template import PromptParts
from longspan.server.decoder.tokens import PromptTokens
from longspan.server.index.growth import Growth
from longspan.server.queue.job import Subject
from longspan.server.queue.output import Finish
from longspan.server.queue.request import RequestInfo
from longspan.server.queue.sequence import PAGE_TOKENS
from longspan.server.queue.sequence import Sequence as OpenSequence
from longspan.server.tasks.answer import (
    Citation,
    GeneratedEvent,
    ReasoningDelta,
    TextDelta,
    UnverifiedQuote,
)
from longspan.server.tasks.checking_span import CheckingSpan
from longspan.server.tasks.sources import Sources
from longspan.server.tasks.task import Task


class Generating:
    """A prompt being read and an answer being written; made by ``generating``.

    The documents are given one after the other by ``reading``, then the prompt is sealed.
    """

    def __init__(
        self, decoder: Decoder, sequence: OpenSequence, parts: PromptParts, tokens: PromptTokens
    ) -> None:
        self._decoder = decoder
        self._sequence = sequence
        self._parts = parts
        self._tokens = tokens
        self._readings: list[Reading] = []

    @property
    def document_tokens(self) -> int:
        """Tokens of the documents, as far as they are read."""
        return sum(reading.tokens for reading in self._readings)

    @property
    def task_tokens(self) -> int:
        """Tokens of the prompt around the documents."""
        return len(self._sequence.prompt) - self.document_tokens

    @property
    def prefilled(self) -> int:
        """Tokens of the prompt that a worker has read."""
        return self._sequence.prefilled

    @property
    def cached(self) -> int:
        """Those of them whose KV pages were there already."""
        return self._sequence.cached

    @property
    def missing(self) -> int:
        """Tokens before the task that were computed because their pages were nowhere."""
        return self._sequence.missing

    @property
    def whole_tokens(self) -> int:
        """Tokens before the task that lie in whole pages."""
        task_start = self._sequence.prompt.task_start
        return task_start - task_start % PAGE_TOKENS

    @property
    def read_as(self) -> str:
        """What decides the pages of a document beside itself, hashed: who reads it, and how."""
        model = self._decoder.model
        named = f"{model.fingerprint} {model.dtype} {self._sequence.attention} ".encode()
        return sha256(named + self._tokens.prefix.astype("<u4").tobytes()).hexdigest()

    def tokens_of(self, document: int) -> int:
        """Tokens of one document, by its place among them."""
        return self._readings[document].tokens

    @property
    def output_tokens(self) -> int:
        """Tokens written."""
        return self._sequence.output.tokens

    @property
    def finish(self) -> Finish:
        """How the answer ended, once it has."""
        return self._sequence.output.finish

    @property
    def first_token_s(self) -> float | None:
        """When the first token came, on the event loop's clock."""
        return self._sequence.output.first_s

    @property
    def per_token_s(self) -> float:
        """Mean time between tokens after the first; 0 when there are not two."""
        output = self._sequence.output
        if output.first_s is None or output.last_s is None or output.tokens < 2:
            return 0.0
        return (output.last_s - output.first_s) / (output.tokens - 1)

    def check(self) -> None:
        """Raise the error that the sequence has ended with, if it has."""
        self._sequence.output.check()

    async def failed(self) -> None:
        """Wait for the end; raise the error that it is, if it is one."""
        await self._sequence.output.failed()

    def reading(self, growth: Growth) -> Reading:
        """Puts the next document into the prompt when it is run."""
        if self._readings:
            self._sequence.append(self._tokens.separator)
        tokenizer, threads = self._decoder.tokenizer, self._decoder.threads
        reading = Reading(growth, tokenizer, self._sequence.append, threads)
        self._readings.append(reading)
        return reading

    def known_as(self, subject: Subject) -> None:
        """The document that arrived has an id now, by which it will be asked for again.

        Raises:
            DocumentQuarantined: it killed workers under that id.
        """
        self._decoder.dispatcher.known_as(self._sequence, subject)

    def seal(self) -> None:
        """All documents are there: the task follows, and then the answer.

        Raises:
            PromptTooLong: the task does not fit behind the documents.
        """
        self._sequence.seal(self._tokens.suffix)

    async def answer(self, sources: Sources) -> AsyncIterator[GeneratedEvent]:
        """Yield what is written, and behind each quotation what the documents say to it.

        Raises:
            LongspanError: the sequence failed.
        """
        checking = CheckingSpan()
        try:
            async for event in self._events(sources, checking):
                yield event
        finally:
            checking.end()

    async def _events(
        self, sources: Sources, checking: CheckingSpan
    ) -> AsyncIterator[GeneratedEvent]:
        splitter = ReasoningSplitter(self._parts.thinks, end=self._parts.reasoning_end)
        scanner = QuoteScanner()
        text: str | None = ""
        while text is not None:
            text = await self._sequence.read()
            for part in splitter.finish() if text is None else splitter.push(text):
                if isinstance(part, Reasoning):
                    yield ReasoningDelta(part.text)
                    continue
                yield TextDelta(part.text)
                for quote in scanner.push(part.text):
                    yield await self._checked(quote, sources, checking)
        for quote in scanner.finish():
            yield await self._checked(quote, sources, checking)

    async def _checked(
        self, quote: str, sources: Sources, checking: CheckingSpan
    ) -> Citation | UnverifiedQuote:
        checking.begin()
        found = await in_thread(self._decoder.threads, lambda: sources.check(quote))
        checking.checked(found)
        return found


@asynccontextmanager
async def generating(
    decoder: Decoder, task: Task, options: GenerationOptions, request: RequestInfo
) -> AsyncIterator[Generating]:
    """Open a task's prompt; what runs for it is cancelled when the block is left early.

    Raises:
        InvalidRequest: the options' grammar does not compile.
        PromptTooLong: the model does not even read the task.
        QueueFull, DocumentQuarantined, WorkersUnavailable, Draining: not now.
    """
    await decoder.grammars.check(options)
    parts, tokens = await decoder.prompt(task)
    async with decoder.open(request, options, parts, tokens) as sequence:
        yield Generating(decoder, sequence, parts, tokens)
