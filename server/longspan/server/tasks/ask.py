"""Answers a question with the best passages and the sentence in each that says it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longspan.server.aio import in_thread
from longspan.server.embedder import Embedder
from longspan.server.queue.request import RequestInfo
from longspan.server.tasks.answer import AnswerEvent, line_with_citation
from longspan.server.tasks.candidates import Candidates, Place, Sentence, embed_sentences
from longspan.server.tasks.content import Content
from longspan.server.tasks.ranking import overlap, word_scores
from longspan.server.text.terms import ideographic_share, terms
from longspan.server.tracing import names
from longspan.server.tracing.spans import span

# More passages than citations are read closely: their sentences help to order them.
CLOSE_READING = 5
WORD_WEIGHT = 0.35
# The embedded encoder knows few ideographs: words decide there.
IDEOGRAPHIC_WORD_WEIGHT = 1.0
SENTENCE_SHARE = 0.3
OVERLAP_WEIGHT = 0.15
# Below it, nothing in the document is about the question.
LEAST_SCORE = 0.15


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A question as encoder and word index read it.

    Attributes:
        ids: uint32 [tokens].
        terms: uint32 [terms].
        vector: float32 [dimension], unit length.
        word_weight: of the word score beside the cosine.
    """

    ids: NDArray[np.uint32]
    terms: NDArray[np.uint32]
    vector: NDArray[np.float32]
    word_weight: float


@dataclass(frozen=True, slots=True)
class Found:
    """A sentence, the score of its passage, and both together."""

    sentence: Sentence
    score: float


async def read_question(
    text: str, ids: NDArray[np.uint32], embedder: Embedder, request: RequestInfo
) -> Question:
    """Embed a question."""
    [vector] = await embedder.encode([ids], request, 0)
    share = ideographic_share(text)
    weight = share * IDEOGRAPHIC_WORD_WEIGHT + (1 - share) * WORD_WEIGHT
    return Question(ids, terms(text), vector, weight)


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
        with span(names.RANK) as rank:
            best = await self._rank(contents)
            rank.set_attribute(names.CITATIONS, len(best))
        for index, found in enumerate(best, start=1):
            citation = found.sentence.cite(index, found.score)
            yield line_with_citation(citation)
            yield citation

    async def _rank(self, contents: Sequence[Content]) -> list[Found]:
        """What to cite, best first."""
        threads = self.embedder.threads
        places = await in_thread(threads, lambda: self._closest(contents))
        if not places:
            return []
        candidates = await embed_sentences(list(places), self.embedder, self.request)
        self.task_tokens += candidates.tokens
        best = await in_thread(threads, lambda: self._best_sentences(places, candidates))
        return best[: self.max_citations]

    def _closest(self, contents: Sequence[Content]) -> dict[Place, float]:
        """The passages to read closely, with their scores."""
        scored = [
            (Place(content, passage), float(score))
            for content in contents
            for passage, score in enumerate(self._passage_scores(content))
            if score >= LEAST_SCORE
        ]
        scored.sort(key=lambda pair: -pair[1])
        return dict(scored[: max(CLOSE_READING, self.max_citations)])

    def _passage_scores(self, content: Content) -> NDArray[np.float64]:
        cosine = (content.index.vectors @ self.question.vector).astype(np.float64)
        words = word_scores(content.index, self.question.terms)
        return cosine + self.question.word_weight * words

    def _best_sentences(self, places: dict[Place, float], candidates: Candidates) -> list[Found]:
        """The best sentence of each place, best place first."""
        cosine = candidates.vectors @ self.question.vector
        best: dict[Place, tuple[float, Sentence]] = {}
        for sentence, similarity in zip(candidates.sentences, cosine.tolist(), strict=True):
            shared = overlap(self.question.terms, terms(sentence.text))
            score = similarity + OVERLAP_WEIGHT * shared
            if sentence.place not in best or score > best[sentence.place][0]:
                best[sentence.place] = (score, sentence)
        found = [
            Found(sentence, (1 - SENTENCE_SHARE) * places[place] + SENTENCE_SHARE * score)
            for place, (score, sentence) in best.items()
        ]
        return sorted(found, key=lambda one: -one.score)
