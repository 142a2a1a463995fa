"""Picks the sentences a document is mostly about, in its own order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np

from longspan.server.aio import in_thread
from longspan.server.embedder import Embedder
from longspan.server.queue.request import RequestInfo
from longspan.server.tasks.answer import AnswerEvent, line_with_citation
from longspan.server.tasks.candidates import Candidates, Place, Sentence, embed_sentences
from longspan.server.tasks.content import Content
from longspan.server.tasks.ranking import Scores, Vectors, central, diverse
from longspan.server.tracing import names
from longspan.server.tracing.spans import span

PASSAGES_PER_SENTENCE = 2
# A heading, a table row or a scrap says little alone.
SHORT_TOKENS = 8
SCRAP_PENALTY = 0.5
# What a text opens with tells more of it than the rest (lead bias of reports and news).
LEAD_WEIGHT = 0.15


@dataclass(slots=True)
class Summarized:
    """Runs one summary; ``task_tokens`` is what it has cost so far."""

    embedder: Embedder
    request: RequestInfo
    max_sentences: int
    task_tokens: int = 0

    async def answer(self, contents: Sequence[Content]) -> AsyncIterator[AnswerEvent]:
        """Yield each citation after the line that quotes it."""
        with span(names.RANK) as rank:
            salient = await self._rank(contents)
            rank.set_attribute(names.CITATIONS, len(salient))
        for index, (sentence, score) in enumerate(salient, start=1):
            citation = sentence.cite(index, score)
            yield line_with_citation(citation)
            yield citation

    async def _rank(self, contents: Sequence[Content]) -> list[tuple[Sentence, float]]:
        """What to cite, in the document's order."""
        threads = self.embedder.threads
        places = await in_thread(threads, lambda: self._salient_passages(contents))
        if not places:
            return []
        candidates = await embed_sentences(places, self.embedder, self.request)
        self.task_tokens += candidates.tokens
        if not candidates.sentences:
            return []
        salient = await in_thread(threads, lambda: self._salient(candidates))
        return [(candidates.sentences[number], score) for number, score in salient]

    def _salient_passages(self, contents: Sequence[Content]) -> list[Place]:
        per_document = -(-PASSAGES_PER_SENTENCE * self.max_sentences // max(len(contents), 1))
        return [
            Place(content, passage)
            for content in contents
            if len(content.index)
            for passage in sorted(
                diverse(_salience(content.index.vectors), content.index.vectors, per_document)
            )
        ]

    def _salient(self, candidates: Candidates) -> list[tuple[int, float]]:
        scores = central(candidates.vectors)
        scraps = [
            len(ids) < SHORT_TOKENS or sentence.text.startswith(("|", "#"))
            for ids, sentence in zip(candidates.ids, candidates.sentences, strict=True)
        ]
        scores = scores - SCRAP_PENALTY * np.array(scraps)
        chosen = diverse(scores, candidates.vectors, self.max_sentences)
        return [(number, float(scores[number])) for number in sorted(chosen)]


def _salience(vectors: Vectors) -> Scores:
    lead = 1.0 - np.arange(len(vectors)) / len(vectors)
    return central(vectors) + LEAD_WEIGHT * lead
