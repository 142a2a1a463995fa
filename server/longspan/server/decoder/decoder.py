"""Prompts to answers: the tokenizer and template of the model, and the queue before its workers."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from datetime import datetime

from tokenizers import Tokenizer

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.aio import in_thread
from longspan.server.decoder.grammar_check import GrammarCheck
from longspan.server.decoder.options import GenerationOptions
from longspan.server.decoder.policy_digests import PRESETS_ALONE, PolicyDigests
from longspan.server.decoder.template import PromptParts, PromptTemplate
from longspan.server.decoder.tokens import PromptTokeniser, PromptTokens
from longspan.server.pool.model_info import ModelInfo
from longspan.server.queue.request import RequestInfo
from longspan.server.queue.sequence import Sequence
from longspan.server.queue.sequences import SequenceDispatcher
from longspan.server.tasks.task import Task


class Decoder:
    """Generates on behalf of one request at a time.

    Args:
        template: how prompts are written.
        tokeniser: of documents and of what stands around them.
        dispatcher: the queue.
        model: what its workers serve.
        threads: where tokenising runs.
        policies: what tells the files apart that its attention policies are read from.
        files_digest: of the model's files that decide answers beside its weights.
    """

    def __init__(
        self,
        template: PromptTemplate,
        tokeniser: PromptTokeniser,
        dispatcher: SequenceDispatcher,
        model: ModelInfo,
        threads: ThreadPoolExecutor,
        policies: PolicyDigests = PRESETS_ALONE,
        files_digest: str = "",
    ) -> None:
        self._template = template
        self._tokeniser = tokeniser
        self.dispatcher = dispatcher
        self.model = model
        self.threads = threads
        self.policies = policies
        self.files_digest = files_digest
        self.grammars = GrammarCheck()

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of documents: it reads no control tokens."""
        return self._tokeniser.plain

    async def parts(self, task: Task) -> PromptParts:
        """What stands around the documents, as text."""
        return await in_thread(self.threads, lambda: self._template.parts(task, datetime.now()))

    async def prompt(self, task: Task) -> tuple[PromptParts, PromptTokens]:
        """What stands around the documents, as text and as tokens."""

        def make() -> tuple[PromptParts, PromptTokens]:
            parts = self._template.parts(task, datetime.now())
            return parts, self._tokeniser.tokenise(parts)

        return await in_thread(self.threads, make)

    def open(
        self,
        request: RequestInfo,
        options: GenerationOptions,
        parts: PromptParts,
        tokens: PromptTokens,
    ) -> AbstractAsyncContextManager[Sequence]:
        """A sequence that begins with what stands before the documents."""
        return self.dispatcher.open(
            request,
            sampling(options, parts),
            tokens.prefix,
            task_tokens=len(tokens.suffix),
            attention=options.attention,
        )


def sampling(options: GenerationOptions, parts: PromptParts) -> pb.Sampling:
    """The options as a worker takes them; a seed is drawn where the caller gave none.

    A form binds the answer only, and so do stops: where the prompt opens the reasoning, they
    begin behind that.
    """
    seed = secrets.randbits(64) if options.seed is None else options.seed
    message = pb.Sampling(
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        seed=seed,
        stop_texts=options.stop_texts,
        stop_tokens=options.stop_tokens,
        answer_begins=parts.reasoning_end if parts.thinks else "",
    )
    if not options.is_free_text:
        grammar = pb.Grammar(begins_after=parts.answer_begins if parts.thinks else "")
        if options.json_schema is not None:
            grammar.json_schema = options.json_schema
        elif options.regex is not None:
            grammar.regex = options.regex
        message.grammar.CopyFrom(grammar)
    return message
