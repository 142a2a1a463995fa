"""The bytes of one stored document, and quotations checked against them."""

from __future__ import annotations

import os
from pathlib import Path

from longspan.server.errors import DocumentMissing
from longspan.server.identity import DocumentId
from longspan.server.index.passage_index import PassageIndex
from longspan.server.tasks.answer import Citation
from longspan.server.text.spans import Span


class Content:
    """A document being read by one request; survives its deletion meanwhile.

    Raises:
        DocumentMissing: the content is gone.
    """

    def __init__(self, document_id: DocumentId, path: Path, index: PassageIndex) -> None:
        self.document_id = document_id
        self.index = index
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise DocumentMissing(f"no document {document_id}") from error

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def text(self, span: Span) -> str:
        """The text at ``span``. Blocking."""
        data = os.pread(self._file, span.end - span.start, span.start)
        return data.decode("utf-8")

    def cite(self, index: int, quote: str, span: Span, passage: int, score: float) -> Citation:
        """A citation, after comparing the quotation with the document. Blocking.

        Raises:
            MisquotedError: the document says something else there.
        """
        actual = os.pread(self._file, span.end - span.start, span.start)
        if actual != quote.encode("utf-8"):
            raise MisquotedError(f"{self.document_id} differs from the quotation at {span}")
        # Two decimals: the last bits of a vector depend on what it was batched with.
        return Citation(
            index, self.document_id, span, quote, self.index.span(passage), round(score, 2)
        )


class MisquotedError(Exception):
    """A fault of ours: the quotation is not what stands in the document."""
