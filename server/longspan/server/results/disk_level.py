"""Level 2: answers on the server's disk, which outlive it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from longspan.blobstore import stats as blobs
from longspan.blobstore.breaker import BreakerLimits, State
from longspan.blobstore.header import TEXT_BYTES
from longspan.blobstore.limits import StoreLimits
from longspan.blobstore.store import BlobStore
from longspan.blobstore.verify import Report
from longspan.server.aio import in_thread
from longspan.server.identity import Tenant
from longspan.server.results.first_level import Owner
from longspan.server.results.guard import Guard
from longspan.server.results.levels import Level
from longspan.server.results.record import MAGIC, BadRecord, Record, decode, encode

THREADS = 2
# A disk that takes longer is as slow as answering anew.
LIMITS = BreakerLimits(failures=3, slow_s=0.5, pause_s=1.0, longest_pause_s=60.0)
# How often a folder that could not be opened is tried again.
REFRESH_S = 1.0

T = TypeVar("T")


class DiskLevel:
    """Blocking work runs in threads of its own; trouble with the disk is a miss.

    Made by ``open_disk``.
    """

    level = Level.DISK

    def __init__(self, store: BlobStore, threads: ThreadPoolExecutor) -> None:
        self._store = store
        self._threads = threads
        self._guard = Guard(LIMITS, ())
        self._verifying = asyncio.Lock()
        self._refreshed_s = time.monotonic()

    @property
    def stats(self) -> blobs.Stats:
        """What the store holds and has done."""
        return self._store.stats

    @property
    def breaker(self) -> State:
        """The state of its breaker."""
        return self._guard.state

    async def get(self, key: bytes) -> Record | None:
        """An answer, if it is here and whole; without waiting for the disk if it is not."""
        if not self._store.known(key):
            return None
        data = await self._guarded(lambda: self._store.read(key))
        if data is None:
            return None
        try:
            record = decode(data)
        except BadRecord:
            return None
        return record if record.key == key else None

    async def put(self, record: Record, owner: Owner) -> None:
        """Keep an answer, unless it is about more documents than a blob can name."""
        if len(owner.subject) > TEXT_BYTES:
            return
        await self._guarded(lambda: self._put(record, owner))

    async def remove(self, tenant: Tenant | None, document: str = "") -> int:
        """Drop the answers about a document, of a tenant, or all; returns how many."""
        return await in_thread(self._threads, lambda: self._remove(tenant, document))

    async def verify(self) -> Report:
        """Read every file; what is damaged is removed.

        One at a time: a thread is left for requests, which would find the disk slow otherwise.
        """
        async with self._verifying:
            return await in_thread(self._threads, self._store.verify)

    async def close(self) -> None:
        """Let go of the folder."""
        await in_thread(self._threads, self._store.close)

    def _put(self, record: Record, owner: Owner) -> None:
        now = time.monotonic()
        if now - self._refreshed_s > REFRESH_S:
            self._refreshed_s = now
            self._store.refresh()
        self._store.put(record.key, [encode(record)], tenant=owner.tenant, subject=owner.subject)

    def _remove(self, tenant: Tenant | None, document: str) -> int:
        if tenant is None or not document:
            return self._store.clear(tenant)
        # An answer about several documents goes with each of them.
        named = [one.subject for one in self._store.subjects(tenant)]
        about = [subject for subject in named if document in subject.split(",")]
        # One that is being written is not listed yet.
        about = list(dict.fromkeys([document, *about]))
        return sum(self._store.remove_subject(tenant, subject) for subject in about)

    async def _guarded(self, call: Callable[[], T]) -> T | None:
        loop = asyncio.get_running_loop()
        return await self._guard.run(lambda: loop.run_in_executor(self._threads, call))


async def open_disk(folder: Path, limits: StoreLimits, threads: ThreadPoolExecutor) -> DiskLevel:
    """The answers in a folder; those of another version are removed."""
    store = await in_thread(threads, lambda: BlobStore(folder, limits, magic=MAGIC))
    return DiskLevel(store, threads)
