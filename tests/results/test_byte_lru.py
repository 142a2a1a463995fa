"""Level 1 in memory: never over its budget, least recently used out first."""

from __future__ import annotations

from collections import OrderedDict

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from longspan.server.results.byte_lru import OVERHEAD_BYTES, ByteLru
from longspan.server.results.memory_cache import BoundedMemoryCache
from tests.results.records import record, text_of

BUDGET = 5 * (OVERHEAD_BYTES + 20)
names = st.sampled_from("abcdefgh")


class AgainstADictionary(RuleBasedStateMachine):
    """The same, written out with a list of what was used when."""

    def __init__(self) -> None:
        super().__init__()
        self.lru = ByteLru(BUDGET)
        self.naive: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self.now = 0.0

    def _size(self) -> int:
        return sum(len(n) + len(v) + OVERHEAD_BYTES for n, (v, _) in self.naive.items())

    @rule(name=names, size=st.integers(0, 2 * BUDGET), lasts=st.integers(1, 20))
    def put(self, name: str, size: int, lasts: int) -> None:
        """Keep a value for a while."""
        value = bytes(size)
        kept = self.lru.put(name, value, self.now + lasts)
        self.naive.pop(name, None)
        self.naive[name] = (value, self.now + lasts)
        fits = len(name) + size + OVERHEAD_BYTES <= BUDGET
        assert kept == fits
        if not fits:
            del self.naive[name]
        while self._size() > BUDGET:
            self.naive.popitem(last=False)

    @rule(name=names)
    def get(self, name: str) -> None:
        """Ask for a value."""
        found = self.lru.get(name, self.now)
        value, until = self.naive.get(name, (None, 0.0))
        if value is not None and until <= self.now:
            del self.naive[name]
            value = None
        if value is not None:
            self.naive.move_to_end(name)
        assert found == value

    @rule(name=names)
    def remove(self, name: str) -> None:
        """Drop a value."""
        assert self.lru.remove(name) == (self.naive.pop(name, None) is not None)

    @rule(seconds=st.integers(1, 10))
    def wait(self, seconds: int) -> None:
        """Time goes on."""
        self.now += seconds

    @invariant()
    def the_same_is_kept_in_the_same_order(self) -> None:
        assert list(self.lru) == list(self.naive)
        assert self.lru.bytes == self._size() <= BUDGET


TestByteLru = AgainstADictionary.TestCase
TestByteLru.settings = settings(max_examples=40, stateful_step_count=30)


async def test_aiocache_keeps_records_in_it_until_their_time_is_over() -> None:
    now = 0.0
    cache = BoundedMemoryCache(10_000, 60.0, clock=lambda: now)
    await cache.set("a", record(text="Yes."))
    assert text_of(await cache.get("a")) == "Yes."
    assert await cache.get("b") is None
    now = 60.0
    assert await cache.get("a") is None
    assert len(cache.entries) == 0
    await cache.set("a", record(text="x" * 20_000))
    assert await cache.get("a") is None
    await cache.set("a", record())
    assert await cache.delete("a") == 1
    assert cache.entries.bytes == 0
