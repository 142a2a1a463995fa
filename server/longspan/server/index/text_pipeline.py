"""Bytes in, passages out: decoding, tokenising and cutting of one document."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from longspan.server.text.passages import Passage, PassageCutter
from longspan.server.text.tokeniser import StreamingTokeniser, TokenPiece
from longspan.server.text.utf8 import IncrementalUtf8


class TextPipeline:
    """Runs in a thread, one call at a time.

    Attributes:
        tokens: tokens seen so far.
    """

    def __init__(self, tokenizer: Tokenizer, *, passage_tokens: int) -> None:
        self._utf8 = IncrementalUtf8()
        self._tokeniser = StreamingTokeniser(tokenizer, with_offsets=True)
        self._cutter = PassageCutter(max_tokens=passage_tokens)
        self.tokens = 0

    def feed(self, data: bytes) -> list[Passage]:
        """Passages that are certain after ``data``."""
        return self._cut(self._tokeniser.feed(self._utf8.decode(data)))

    def finish(self) -> list[Passage]:
        """The remaining passages.

        Raises:
            InvalidUtf8: the document ends within a code point.
        """
        self._utf8.finish()
        return self._cut(self._tokeniser.finish()) + self._cutter.finish()

    def _cut(self, pieces: Sequence[TokenPiece]) -> list[Passage]:
        passages: list[Passage] = []
        for piece in pieces:
            self.tokens += len(piece.ids)
            passages += self._cutter.feed(piece)
        return passages
