"""A document streamed in chunks, and the naive whole it is compared with."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from longspan.server.text.tokeniser import StreamingTokeniser, TokenPiece
from longspan.server.text.utf8 import IncrementalUtf8


@dataclass(frozen=True, slots=True, eq=False)
class Tokenised:
    """A whole text, its ids and where they stand."""

    text: str
    ids: NDArray[np.uint32]
    offsets: NDArray[np.int32]

    def matches(self, other: Tokenised) -> bool:
        """The comparison that every exactness test makes."""
        return (
            self.text == other.text
            and np.array_equal(self.ids, other.ids)
            and np.array_equal(self.offsets, other.offsets)
        )


def one_shot(tokenizer: Tokenizer, text: str) -> Tokenised:
    """The reference: the whole text in one call."""
    encoding = tokenizer.encode(text, add_special_tokens=False)
    offsets = np.array(encoding.offsets, np.int32).reshape(-1, 2)
    return Tokenised(text, np.array(encoding.ids, np.uint32), offsets)


def stream(tokeniser: StreamingTokeniser, chunks: Iterable[bytes]) -> list[TokenPiece]:
    """All pieces of a document that arrives in these chunks."""
    utf8, pieces = IncrementalUtf8(), []
    for chunk in chunks:
        pieces += tokeniser.feed(utf8.decode(chunk))
    utf8.finish()
    return pieces + tokeniser.finish()


def joined(pieces: Sequence[TokenPiece]) -> Tokenised:
    """Pieces put together; each must start where the one before ended."""
    position = 0
    for piece in pieces:
        assert piece.start_char == position
        position += len(piece.text)
    ids = [np.zeros(0, np.uint32), *(piece.ids for piece in pieces)]
    offsets = [piece.offsets for piece in pieces if piece.offsets is not None]
    return Tokenised(
        "".join(piece.text for piece in pieces),
        np.concatenate(ids),
        np.concatenate([np.zeros((0, 2), np.int32), *offsets]),
    )


def random_chunks(rng: random.Random, data: bytes) -> list[bytes]:
    """Cut bytes anywhere, also inside code points; now and then very finely."""
    count = rng.choice((1, 2, 3, 5, 8, 13, 40))
    places = sorted(rng.randint(0, len(data)) for _ in range(count))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
