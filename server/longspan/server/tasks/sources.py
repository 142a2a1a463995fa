"""The documents that a written answer quotes, and its quotations checked against them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path

from longspan.server.decoder.quote_finder import QuoteFinder
from longspan.server.errors import DocumentMissing
from longspan.server.identity import DocumentId
from longspan.server.tasks.answer import Citation, UnverifiedQuote
from longspan.server.tasks.paragraphs import paragraph
from longspan.server.text.spans import Span

# The document's own bytes: nothing is more similar.
VERBATIM = 1.0


class Sources:
    """Documents being read by one request; survive their deletion meanwhile.

    Raises:
        DocumentMissing: a content is gone.
    """

    def __init__(self, documents: Sequence[tuple[DocumentId, Path]]) -> None:
        self._ids = [document_id for document_id, _ in documents]
        self._maps: list[mmap] = []
        try:
            for document_id, path in documents:
                self._maps.append(_map(document_id, path))
        except DocumentMissing:
            self.close()
            raise
        self._finder = QuoteFinder(self._maps)
        self._cited: dict[tuple[int, Span], int] = {}

    def close(self) -> None:
        """Let go of the files."""
        for one in self._maps:
            one.close()

    def check(self, quote: str) -> Citation | UnverifiedQuote:
        """What a quotation in an answer is; the same place has the same index. Blocking.

        The citation's quotation is the document's own text, which may differ from the
        answer's in white space, marks and hyphens.
        """
        place = self._finder.find(quote)
        if place is None:
            return UnverifiedQuote(quote)
        document_id, span = self._ids[place.document], place.span
        content = self._maps[place.document]
        index = self._cited.setdefault((place.document, span), len(self._cited) + 1)
        text = content[span.start : span.end].decode("utf-8")
        return Citation(index, document_id, span, text, paragraph(content, span), VERBATIM)


def _map(document_id: DocumentId, path: Path) -> mmap:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise DocumentMissing(f"no document {document_id}") from error
    try:
        return mmap(file, 0, access=ACCESS_READ)
    finally:
        os.close(file)
