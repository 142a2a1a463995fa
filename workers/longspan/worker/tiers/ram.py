"""Parts of pages in the host's memory: the ones used last, within a budget of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import replace
from threading import Lock

from longspan.worker.kv.label import Label
from longspan.worker.kv.subjects import Name, Subjects


class RamTier:
    """Safe from any thread.

    Args:
        budget_bytes: of all contents together; 0 keeps nothing.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._kept: OrderedDict[bytes, tuple[memoryview, Label]] = OrderedDict()
        self._subjects: Subjects[bytes] = Subjects()
        self._bytes = 0
        self._lock = Lock()

    @property
    def used_bytes(self) -> int:
        """Of the contents."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, name: bytes) -> bool:
        return name in self._kept

    def get(self, name: bytes) -> memoryview | None:
        """What is kept under a name; it is the one used last then."""
        with self._lock:
            found = self._kept.get(name)
            if found is None:
                return None
            self._kept.move_to_end(name)
            return found[0]

    def put(self, name: bytes, data: memoryview, label: Label) -> None:
        """Keep something, and give up what was used longest ago for it."""
        if data.nbytes > self.budget_bytes:
            return
        with self._lock:
            self._remove(name)
            self._kept[name] = (data, label)
            self._subjects.add(label, name)
            self._bytes += data.nbytes
            while self._bytes > self.budget_bytes:
                self._remove(next(iter(self._kept)))

    def counts(self, tenant: str, subjects: Collection[str] = ()) -> dict[Name, int]:
        """Parts of a tenant's subjects; of all where none is named, of all tenants likewise."""
        with self._lock:
            return {name: len(of) for name, of in self._subjects.chosen(tenant, subjects)}

    def rename(self, tenant: str, old: str, new: str) -> None:
        """A subject has another name from now on."""
        with self._lock:
            for name in self._subjects.belonging(tenant, old):
                data, label = self._kept[name]
                self._subjects.remove(label, name)
                self._kept[name] = (data, replace(label, subject=new))
                self._subjects.add(self._kept[name][1], name)

    def forget(self, tenant: str, subject: str) -> int:
        """Give up what is a tenant's, or of one subject of it; empty names mean all.

        Returns:
            How many parts.
        """
        with self._lock:
            names = self._subjects.belonging(tenant, subject)
            for name in names:
                self._remove(name)
            return len(names)

    def _remove(self, name: bytes) -> None:
        found = self._kept.pop(name, None)
        if found is not None:
            self._subjects.remove(found[1], name)
            self._bytes -= found[0].nbytes
