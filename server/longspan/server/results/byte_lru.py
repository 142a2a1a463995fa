"""Values by name within a budget of bytes, least recently used out first. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

# What an entry takes beside its name and its value: objects, and its place in the order.
OVERHEAD_BYTES = 256


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    expires_s: float
    size_bytes: int


class ByteLru:
    """Times are seconds of one clock; an entry past its time is not there.

    Attributes:
        bytes: what the entries take.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._entries))

    def get(self, name: str, now: float) -> bytes | None:
        """A value, which counts as used; None when it is not there."""
        entry = self._entries.get(name)
        if entry is None:
            return None
        if entry.expires_s <= now:
            self.remove(name)
            return None
        self._entries.move_to_end(name)
        return entry.value

    def put(self, name: str, value: bytes, expires_s: float) -> bool:
        """Keep a value in place of an older one; False when it alone is over the budget."""
        self.remove(name)
        size_bytes = len(name) + len(value) + OVERHEAD_BYTES
        if size_bytes > self._budget_bytes:
            return False
        while self.bytes + size_bytes > self._budget_bytes:
            self.remove(next(iter(self._entries)))
        self._entries[name] = _Entry(value, expires_s, size_bytes)
        self.bytes += size_bytes
        return True

    def remove(self, name: str) -> bool:
        """Drop a value; False when it was not there."""
        entry = self._entries.pop(name, None)
        if entry is not None:
            self.bytes -= entry.size_bytes
        return entry is not None
