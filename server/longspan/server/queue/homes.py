"""Which worker holds the pages of which document. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from longspan.server.queue.job import Subject

WorkerKey = TypeVar("WorkerKey")


class Homes(Generic[WorkerKey]):
    """The worker that read a subject last; bounded, least recently used out first."""

    def __init__(self, *, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._homes: OrderedDict[Subject, WorkerKey] = OrderedDict()

    def __len__(self) -> int:
        return len(self._homes)

    def of(self, subject: Subject) -> WorkerKey | None:
        """The home of a subject; None when it has none."""
        home = self._homes.get(subject)
        if home is not None:
            self._homes.move_to_end(subject)
        return home

    def settle(self, subject: Subject, worker: WorkerKey) -> None:
        """The worker reads the subject now."""
        self._homes[subject] = worker
        self._homes.move_to_end(subject)
        if len(self._homes) > self._capacity:
            self._homes.popitem(last=False)

    def lose(self, worker: WorkerKey) -> None:
        """The worker is gone, and its pages with it."""
        gone = [subject for subject, home in self._homes.items() if home == worker]
        for subject in gone:
            del self._homes[subject]
