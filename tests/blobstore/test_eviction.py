"""Least recently used, by ranks, against a plain ordered record."""

from __future__ import annotations

from collections import OrderedDict

from benchmarks.trace_replay.index import RankedIndex
from hypothesis import given
from hypothesis import strategies as st

from longspan.blobstore.eviction import Entry, LeastRecentlyUsed

EPOCH_S = 1.8e9
"""A date: ranks are differences of microseconds between numbers of this size."""

KEYS = st.integers(0, 9).map(lambda number: bytes([number]) * 32)


def rank_of(depth: int, used_s: float) -> float:
    """The rank of a blob that lies so deep in its chain."""
    return LeastRecentlyUsed().rank(Entry(1, depth=depth), used_s=used_s, hits=0, floor=0.0)


@given(keys=st.lists(KEYS, max_size=60), capacity=st.integers(1, 6))
def test_it_is_the_order_of_uses(keys: list[bytes], capacity: int) -> None:
    index = RankedIndex(capacity, LeastRecentlyUsed())
    model: OrderedDict[bytes, None] = OrderedDict()
    for second, key in enumerate(keys):
        assert (key in index) == (key in model)
        if key in index and second % 2:
            index.use(key, EPOCH_S + second)
        else:
            index.put(key, Entry(1), EPOCH_S + second)
        model[key] = None
        model.move_to_end(key)
        if len(model) > capacity:
            model.popitem(last=False)
        assert len(index) == len(model)
        assert all(known in index for known in model)


@given(
    depth=st.integers(0, 4000),
    other=st.integers(0, 4000),
    later_s=st.floats(0.01, 1e7),
)
def test_later_uses_rank_higher_and_of_one_use_the_beginning_of_a_chain(
    depth: int, other: int, later_s: float
) -> None:
    assert rank_of(depth, EPOCH_S) < rank_of(other, EPOCH_S + later_s)
    if depth != other:
        assert (rank_of(depth, EPOCH_S) < rank_of(other, EPOCH_S)) == (depth > other)


@given(length=st.integers(2, 300), capacity=st.integers(1, 299))
def test_a_chain_that_does_not_fit_keeps_its_beginning(length: int, capacity: int) -> None:
    index = RankedIndex(capacity, LeastRecentlyUsed())
    chain = [number.to_bytes(32, "little") for number in range(length)]
    for depth, key in enumerate(chain):
        index.put(key, Entry(1, depth=depth), EPOCH_S)
    kept = [key in index for key in chain]
    # The newest blob always comes in: the one before the last that fits makes room for it.
    assert kept[: min(capacity, length) - 1] == [True] * (min(capacity, length) - 1)
    assert kept[-1]
    assert len(index) == min(capacity, length)
