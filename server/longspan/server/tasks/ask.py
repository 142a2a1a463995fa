"""Answers a question with the best passages and the sentence in each that says it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longspan.server.embedder import Embedder
from longspan.server.queue.request import RequestInfo
from longspan.server.tasks.answer import AnswerEvent, line_with_citation
from longspan.server.tasks.candidates import Candidates, Place, Sentence, embed_sentences
from longspan.server.tasks.content import Content
from longspan.server.tasks.ranking import rank

# More passages than citations are read closely: the sentences decide their order.
CLOSE_READING = 5
# Below both, nothing in the document is about the question.
LEAST_PASSAGE = 0.15
LEAST_SENTENCE = 0.15


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A question as the encoder reads it."""

    ids: NDArray[np.uint32]
    vector: NDArray[np.float32]


async def read_question(
    ids: NDArray[np.uint32], embedder: Embedder, request: RequestInfo
) -> Question:
    """Embed a question's tokens."""
    [vector] = await embedder.encode([ids], request, 0)
    return Question(ids, vector)


@dataclass(slots=True)
class Asked:
    """Runs one question; ``task_tokens`` is what it has cost so far."""

    question: Question
    embedder: Embedder
    request: RequestInfo
    max_citations: int
    task_tokens: int = 0

    async def answer(self, contents: Sequence[Content]) -> AsyncIterator[AnswerEvent]:
        """Yield each citation after the line that quotes it; nothing if there is no answer."""
        self.task_tokens += len(self.question.ids)
        places = self._closest(contents)
        if not places:
            return
        candidates = await embed_sentences(
            [place for place, _ in places], self.embedder, self.request
        )
        self.task_tokens += candidates.tokens
        best = self._best_sentences(dict(places), candidates)
        for index, (sentence, score) in enumerate(best[: self.max_citations], start=1):
            place = sentence.place
            citation = place.content.cite(index, sentence.text, sentence.span, place.passage, score)
            yield line_with_citation(citation)
            yield citation

    def _closest(self, contents: Sequence[Content]) -> list[tuple[Place, float]]:
        scored = [
            (Place(content, passage), float(score))
            for content in contents
            for passage, score in enumerate(
                rank(content.index, self.question.ids, self.question.vector)
            )
            if score >= LEAST_PASSAGE
        ]
        scored.sort(key=lambda pair: -pair[1])
        return scored[: max(CLOSE_READING, self.max_citations)]

    def _best_sentences(
        self, places: dict[Place, float], candidates: Candidates
    ) -> list[tuple[Sentence, float]]:
        cosine = candidates.vectors @ self.question.vector
        best: dict[Place, tuple[Sentence, float]] = {}
        for sentence, score in zip(candidates.sentences, cosine.tolist(), strict=True):
            if sentence.place not in best or score > best[sentence.place][1]:
                best[sentence.place] = (sentence, score)
        merged = [
            (sentence, (places[place] + score) / 2) for place, (sentence, score) in best.items()
        ]
        merged.sort(key=lambda pair: -pair[1])
        return [pair for pair in merged if pair[1] >= LEAST_SENTENCE]
