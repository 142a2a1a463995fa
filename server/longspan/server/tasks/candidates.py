"""Sentences of chosen passages, embedded so that they can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from longspan.server.aio import in_thread
from longspan.server.embedder import Embedder
from longspan.server.queue.request import RequestInfo
from longspan.server.tasks.answer import Citation
from longspan.server.tasks.content import Content
from longspan.server.text.spans import Span


@dataclass(frozen=True, slots=True)
class Place:
    """One passage of one of the request's documents."""

    content: Content
    passage: int


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of a place."""

    place: Place
    span: Span
    text: str

    def cite(self, index: int, score: float) -> Citation:
        """The sentence as a citation, compared with the document again. Blocking."""
        content, passage = self.place.content, self.place.passage
        return content.cite(index, self.text, self.span, passage, score)


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Sentences and their vectors, [sentences, dimension].

    Attributes:
        tokens: what embedding them cost.
    """

    sentences: list[Sentence]
    ids: list[NDArray[np.uint32]]
    vectors: NDArray[np.float32]

    @property
    def tokens(self) -> int:
        """Tokens of all sentences."""
        return sum(len(ids) for ids in self.ids)


async def embed_sentences(
    places: Sequence[Place], embedder: Embedder, request: RequestInfo
) -> Candidates:
    """Read, tokenise and embed the sentences of ``places``."""
    sentences = await in_thread(embedder.threads, lambda: _read_sentences(places))
    ids = await embedder.tokenise([sentence.text for sentence in sentences])
    known = [number for number, tokens in enumerate(ids) if len(tokens)]
    kept_ids = [ids[number] for number in known]
    vectors = await embedder.encode_all(kept_ids, request)
    return Candidates([sentences[number] for number in known], kept_ids, vectors)


def _read_sentences(places: Sequence[Place]) -> list[Sentence]:
    return [
        Sentence(place, span, place.content.text(span))
        for place in places
        for span in place.content.index.sentence_spans(place.passage)
    ]
