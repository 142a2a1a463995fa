"""Which worker holds the pages of which document. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, NamedTuple, TypeVar

from longspan.server.queue.job import Subject

WorkerKey = TypeVar("WorkerKey")


class Pages(NamedTuple):
    """What KV pages are of: a document, as it is read under one attention policy.

    Under another policy the same tokens have other pages.
    """

    document: Subject
    attention: str


class Homes(Generic[WorkerKey]):
    """The worker that read a document last; bounded, least recently used out first."""

    def __init__(self, *, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._homes: OrderedDict[Pages, WorkerKey] = OrderedDict()

    def __len__(self) -> int:
        return len(self._homes)

    def of(self, pages: Pages) -> WorkerKey | None:
        """The home of these pages; None when they have none."""
        home = self._homes.get(pages)
        if home is not None:
            self._homes.move_to_end(pages)
        return home

    def settle(self, pages: Pages, worker: WorkerKey) -> None:
        """The worker has them now."""
        self._homes[pages] = worker
        self._homes.move_to_end(pages)
        if len(self._homes) > self._capacity:
            self._homes.popitem(last=False)

    def lose(self, worker: WorkerKey) -> None:
        """The worker is gone, and its pages with it."""
        gone = [pages for pages, home in self._homes.items() if home == worker]
        for pages in gone:
            del self._homes[pages]
