"""S3-FIFO (Yang et al., SOSP 2023): a small queue for newcomers, a main one, and ghosts."""

from __future__ import annotations

from collections import OrderedDict

from longspan.blobstore.eviction import Entry

_SMALL = 0.1
_MOST_USES = 3


class S3Fifo:
    """Entries of equal size; the shape of ``RankedIndex``."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._small_capacity = max(1, int(capacity * _SMALL))
        self._small: OrderedDict[bytes, int] = OrderedDict()
        self._main: OrderedDict[bytes, int] = OrderedDict()
        self._ghosts: OrderedDict[bytes, None] = OrderedDict()

    def __contains__(self, key: bytes) -> bool:
        return key in self._small or key in self._main

    def __len__(self) -> int:
        return len(self._small) + len(self._main)

    def use(self, key: bytes, now_s: float) -> None:
        """An entry was found. Raises KeyError."""
        queue = self._small if key in self._small else self._main
        queue[key] = min(queue[key] + 1, _MOST_USES)

    def put(self, key: bytes, entry: Entry, now_s: float) -> bool:
        """Add an entry; one that left the small queue not long ago goes to the main one."""
        if key in self:
            return True
        while len(self) >= self._capacity:
            if len(self._small) >= self._small_capacity or not self._main:
                self._leave_small()
            else:
                self._leave_main()
        if key in self._ghosts:
            del self._ghosts[key]
            self._main[key] = 0
        else:
            self._small[key] = 0
        return True

    def _leave_small(self) -> None:
        key, uses = self._small.popitem(last=False)
        if uses > 0:
            self._main[key] = 0
            return
        self._ghosts[key] = None
        if len(self._ghosts) > self._capacity:
            self._ghosts.popitem(last=False)

    def _leave_main(self) -> None:
        key, uses = self._main.popitem(last=False)
        if uses > 0:
            self._main[key] = uses - 1
