"""The indexes of all documents: in memory, on disk, or being built."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from longspan.server.embedder import Embedder
from longspan.server.errors import DiskFull
from longspan.server.identity import DocumentId
from longspan.server.index import file
from longspan.server.index.build import Build
from longspan.server.index.growth import Growth
from longspan.server.index.passage_index import PassageIndex
from longspan.server.index.running import RunningBuild
from longspan.server.queue.job import Subject
from longspan.server.queue.request import RequestInfo
from longspan.server.store.library import Library
from longspan.server.store.records import StoredDocument

log = logging.getLogger(__name__)


class Indexes:
    """Finds an index where it lies, or builds it once for all who ask.

    Args:
        library: where documents are kept.
        embedder: what makes the vectors.
        memory_bytes: how much of the indexes stays in memory, least recently used first out.
    """

    def __init__(self, library: Library, embedder: Embedder, *, memory_bytes: int) -> None:
        self._library = library
        self._embedder = embedder
        self._memory_bytes = memory_bytes
        self._memory: OrderedDict[DocumentId, PassageIndex] = OrderedDict()
        self._running: dict[DocumentId, RunningBuild] = {}

    @property
    def builds(self) -> int:
        """Builds of stored documents under way."""
        return len(self._running)

    def check(self, document: StoredDocument) -> None:
        """Let a document pass that may be indexed.

        Raises:
            DocumentQuarantined: it killed workers.
        """
        self._embedder.dispatcher.check(Subject(document.document_id))

    def quarantine(self, document: StoredDocument) -> None:
        """Refuse a document that was found guilty under the name of its upload."""
        self._embedder.dispatcher.quarantine(Subject(document.document_id))

    def follow(self, growth: Growth, request: RequestInfo) -> RunningBuild:
        """Start building behind a document that is still arriving."""

        async def encode(
            texts: Sequence[NDArray[np.uint32]], max_wait_ms: int
        ) -> NDArray[np.float32]:
            return await self._embedder.encode(texts, request, max_wait_ms)

        build = Build(
            growth,
            self._embedder.pipeline(),
            encode,
            dimension=self._embedder.model.dimension,
            threads=self._embedder.threads,
        )
        return RunningBuild(growth, build)

    async def find(self, document: StoredDocument) -> PassageIndex | None:
        """The index from memory or disk; None when it must be built."""
        index = self._memory.get(document.document_id)
        if index is None:
            index = await asyncio.to_thread(
                file.load, self._path(document), key=self._key(document)
            )
        if index is not None:
            self._remember(document.document_id, index)
        return index

    @asynccontextmanager
    async def join(
        self,
        document: StoredDocument,
        request: RequestInfo,
    ) -> AsyncIterator[RunningBuild]:
        """Wait for the one build of a stored document together with all others who do."""
        running = self._running.get(document.document_id)
        if running is None or running.failed:
            growth = Growth.of_complete(self._library.vault.content(document))
            running = self.follow(growth, request)
            self._running[document.document_id] = running
        else:
            running.hold()
        try:
            yield running
        finally:
            if running.holders == 1 and self._running.get(document.document_id) is running:
                del self._running[document.document_id]
            await running.release()

    async def keep(self, document: StoredDocument, index: PassageIndex) -> StoredDocument:
        """Store a finished index; return the document with what is known of it now.

        A disk that refuses the file costs a rebuild later, never the answer. A document
        that was deleted meanwhile leaves nothing behind.
        """
        indexed = replace(document, tokens=index.tokens, passages=len(index))
        path, key = self._path(document), self._key(document)
        try:
            await asyncio.to_thread(file.save, path, index, key=key)
            stored = await self._library.set_indexed(indexed)
        except (OSError, DiskFull) as error:
            log.warning("index of %s not stored: %s", document.document_id, error)
            return indexed
        if stored:
            self._remember(document.document_id, index)
        return indexed

    def forget(self, document_id: DocumentId) -> None:
        """Drop a deleted document's index from memory."""
        self._memory.pop(document_id, None)

    def _remember(self, document_id: DocumentId, index: PassageIndex) -> None:
        self._memory[document_id] = index
        self._memory.move_to_end(document_id)
        while len(self._memory) > 1 and self._held_bytes() > self._memory_bytes:
            self._memory.popitem(last=False)

    def _held_bytes(self) -> int:
        return sum(index.size_bytes for index in self._memory.values())

    def _key(self, document: StoredDocument) -> str:
        return f"{document.sha256} {self._embedder.model.fingerprint}"

    def _path(self, document: StoredDocument) -> Path:
        return self._library.vault.index(document, self._embedder.model.fingerprint)
