"""Tells a caller that a document had to be read again, since what was kept of it is gone."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence

from longspan.server.errors import DiskFull
from longspan.server.services.conversation import Conversation
from longspan.server.store.library import Library
from longspan.server.store.records import StoredDocument
from longspan.server.tasks.generate import Generating
from longspan.v1 import inference_service_pb2 as pb

_log = logging.getLogger(__name__)


class Rebuilding:
    """What the catalog remembers of one document, against what a worker found of it.

    Pages are known by the tokens from the first on, so what was read before counts under the
    same model, policy and beginning of the prompt alone. Of several documents in one prompt
    nothing is remembered.
    """

    def __init__(
        self, library: Library, run: Generating, document: StoredDocument, before: int
    ) -> None:
        self._library = library
        self._run = run
        self._document = document
        self._before = before

    @classmethod
    async def of(
        cls, library: Library, run: Generating, documents: Sequence[StoredDocument]
    ) -> Rebuilding | None:
        """Look up what was read before; None where nothing is remembered."""
        if len(documents) != 1:
            return None
        [document] = documents
        before = await library.tokens_read(document.document_id, run.read_as)
        return cls(library, run, document, before)

    async def tell(self, talk: Conversation) -> None:
        """The prompt has been read: say what of it was read again."""
        again = min(self._run.missing, self._before)
        if again:
            document_id = self._document.document_id
            await talk.outbox.send(rebuilt=pb.Rebuilt(document_id=document_id, tokens=again))

    async def remember(self) -> None:
        """Note what has been read, where that is news."""
        if self._run.whole_tokens == self._before and self._document.tokens:
            return
        try:
            await self._library.note_reading(
                self._document.document_id,
                self._run.read_as,
                self._run.whole_tokens,
                self._run.tokens_of(0),
            )
        except (DiskFull, OSError, sqlite3.Error) as error:
            # Full, read-only or locked: no reason to fail an answer; the next one is told nothing.
            _log.warning("%s: not noted as read: %s", self._document.document_id, error)
