"""Immutable blobs on an SSD under 32-byte keys, within a budget that processes share."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from longspan.blobstore import blob_file
from longspan.blobstore.blob_file import Buffer
from longspan.blobstore.eviction import EvictionPolicy, LeastRecentlyUsed
from longspan.blobstore.folder import Folder
from longspan.blobstore.header import MAGIC_BYTES, Damaged, Header
from longspan.blobstore.limits import StoreLimits
from longspan.blobstore.listing import Blob, Subject, blobs, subjects
from longspan.blobstore.removing import drop, remove_all
from longspan.blobstore.shared_index import TROUBLE, SharedIndex
from longspan.blobstore.stats import Counters, Miss, Put, Stats
from longspan.blobstore.storing import Storing
from longspan.blobstore.uses import Uses
from longspan.blobstore.verify import Report, verify

_Loaded = TypeVar("_Loaded")


class BlobStore:
    """Blocking; for any number of threads, and of processes that share the folder.

    Trouble with the disk or the index never raises: a read is a miss, a put ``FAILED``, and
    ``stats`` counts it. A process that forks must open its store afterwards.
    """

    def __init__(
        self,
        folder: Path,
        limits: StoreLimits,
        *,
        magic: bytes,
        policy: EvictionPolicy | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Opens the folder, makes it if needed, and clears up what dead writers left.

        Args:
            folder: its own folder; blobs in it that have another magic are removed.
            limits: budget, free space, quota.
            magic: 8 bytes that name what the payloads are and how they are laid out.
            policy: who goes first; ``LeastRecentlyUsed`` if None.
            clock: seconds since the epoch.

        Raises:
            ValueError: the magic has another length.
        """
        if len(magic) != MAGIC_BYTES:
            raise ValueError(f"a magic has {MAGIC_BYTES} bytes")
        self._folder = Folder(folder)
        self._limits = limits
        self._magic = magic
        self._clock = clock
        self._counters = Counters()
        self._uses = Uses()
        self._index = SharedIndex(self._folder, magic, policy or LeastRecentlyUsed(), limits.taken)
        self._storing = Storing(
            self._index, self._folder, limits, magic, self._counters, self._uses
        )
        self._storing.shrink()

    @property
    def stats(self) -> Stats:
        """What is in the store and what happened; without I/O."""
        return self._counters.stats(
            entries=self._index.entries,
            size_bytes=self._index.bytes,
            budget_bytes=self._limits.budget_bytes,
            degraded=self._index.degraded,
        )

    def known(self, key: bytes) -> bool:
        """Whether a blob can probably be read: from memory alone, without waiting for anything."""
        return key in self._index.known

    def refresh(self) -> None:
        """Learn what other processes added and removed, and tell them what was used here.

        Also opens again a folder that could not be opened before.
        """
        try:
            self._index.refresh()
            self._tell_uses()
        except TROUBLE:
            self._counters.io_error()

    def put(
        self,
        key: bytes,
        parts: Sequence[Buffer],
        *,
        tenant: str,
        subject: str = "",
        parent: bytes | None = None,
        cost: float = 0.0,
        label: str = "",
    ) -> Put:
        """Store a blob, evicting others if there is no room.

        Args:
            key: 32 bytes.
            parts: the payload in pieces: C-contiguous buffers, together at most 1 GiB.
            tenant: whose quota it counts against.
            subject: what it belongs to; see ``remove_subject``.
            parent: key of the blob before it in its chain.
            cost: seconds that computing it again would take.
            label: free text.

        Raises:
            ValueError: a key, payload, text or cost that no file can have.
            TypeError: a part that is not contiguous.
        """
        views = [blob_file.as_bytes(part) for part in parts]
        header = Header(
            key=key,
            payload_bytes=sum(map(len, views)),
            created_ns=self._now_ns(),
            tenant=tenant,
            subject=subject,
            label=label,
            parent=parent,
            cost_s=cost,
        )
        outcome = self._storing.put(header, views)
        self._counters.put(outcome)
        return outcome

    def touch(self, key: bytes) -> None:
        """Somebody has used a blob's contents without reading it here."""
        if self.known(key):
            self._uses.note(key, self._now_ns(), hits=1)

    def read(self, key: bytes) -> bytes | None:
        """A blob's payload, verified; None is a miss."""
        path = self._folder.blob(key)
        return self._load(key, lambda: blob_file.load(path, self._magic, key))

    def read_into(self, key: bytes, buffer: memoryview) -> bool:
        """Fill a contiguous buffer of bytes with a payload of exactly its length.

        A payload of another length counts as damage. After False the buffer may hold anything.
        """
        path = self._folder.blob(key)
        loaded = self._load(key, lambda: blob_file.load_into(path, self._magic, key, buffer))
        return loaded is not None

    def remove_subject(self, tenant: str, subject: str) -> int:
        """Remove a subject's blobs, those being written too; returns how many could be read."""
        return self._remove(tenant, subject)

    def rename_subject(self, tenant: str, old: str, new: str) -> None:
        """What belonged to a subject belongs to another from now on.

        The index knows it, the files do not: after a rebuild the old name stands again.
        """
        try:
            with self._index.transaction() as rows:
                rows.rename(tenant, old, new)
        except TROUBLE:
            self._counters.io_error()

    def clear(self, tenant: str | None = None) -> int:
        """Remove all blobs, or a tenant's, as ``remove_subject`` does."""
        return self._remove(tenant, None)

    def entries(self, tenant: str | None = None, subject: str | None = None) -> Iterator[Blob]:
        """The blobs that can be read (of a tenant, of its subject), in no particular order."""
        after: int | None = 0
        while after is not None:
            try:
                with self._index.reading() as connection:
                    page, after = blobs(connection, tenant, subject, after=after)
            except TROUBLE:
                self._counters.io_error()
                return
            yield from page

    def subjects(self, tenant: str | None = None, named: Collection[str] = ()) -> list[Subject]:
        """The same, summed up by tenant and subject; only those that are named, if any are."""
        try:
            with suppress(*TROUBLE):
                self._tell_uses()
            with self._index.reading() as connection:
                return subjects(connection, tenant, named)
        except TROUBLE:
            self._counters.io_error()
            return []

    def verify(self) -> Report:
        """Read every file; remove damaged ones, and those the index does not have."""
        return verify(self._index, self._folder, self._magic)

    def close(self) -> None:
        """Let go of the folder; afterwards nothing is known and nothing can be stored."""
        with suppress(*TROUBLE):
            self._tell_uses()
        self._index.close()

    def _now_ns(self) -> int:
        return int(self._clock() * 1e9)

    def _load(self, key: bytes, load: Callable[[], _Loaded]) -> _Loaded | None:
        if key not in self._index.known:
            self._counters.miss(Miss.ABSENT)
            return None
        try:
            loaded = load()
        except FileNotFoundError:
            self._miss(key, Miss.GONE, None)
        except Damaged as damage:
            self._miss(key, damage.reason, damage.inode)
        except OSError:
            self._counters.miss(Miss.IO)
        else:
            self._counters.hit()
            self._uses.note(key, self._now_ns(), hits=1)
            return loaded
        return None

    def _miss(self, key: bytes, reason: Miss, inode: int | None) -> None:
        self._counters.miss(reason)
        self._index.known.discard(key)
        try:
            drop(self._index, self._folder, key, inode)
        except TROUBLE:
            self._counters.io_error()

    def _remove(self, tenant: str | None, subject: str | None) -> int:
        try:
            return remove_all(self._index, self._folder, tenant, subject)
        except TROUBLE:
            self._counters.io_error()
            return 0

    def _tell_uses(self) -> None:
        while self._uses:
            with self._index.transaction() as rows:
                self._uses.tell(rows, self._folder)
