"""What no cache can exceed: one of endless capacity, and Belady's optimum for a given one."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from benchmarks.trace_replay.tally import Tally
from benchmarks.trace_replay.trace import Request

_NEVER = 1 << 60


def replay_endless(requests: Sequence[Request]) -> Tally:
    """Hits of a cache that forgets nothing."""
    tally = Tally()
    seen: set[bytes] = set()
    for request in requests:
        found = next((i for i, k in enumerate(request.blocks) if k not in seen), None)
        tally.add(request, len(request.blocks) if found is None else found)
        seen.update(request.blocks)
    return tally


def replay_optimum(requests: Sequence[Request], capacity: int) -> Tally:
    """Hits of a cache of so many blocks that knows the future.

    What is needed furthest in the future goes first, or never comes in. Of two blocks that the
    same request needs next, the deeper one goes first: no chain loses its beginning.
    """
    tally = Tally()
    cached: dict[bytes, tuple[int, int]] = {}
    heap: list[tuple[int, int, bytes]] = []
    for request, following in zip(requests, _next_uses(requests), strict=True):
        keys = request.blocks
        tally.add(request, next((i for i, k in enumerate(keys) if k not in cached), len(keys)))
        for depth, (key, needed) in enumerate(zip(keys, following, strict=True)):
            cached[key] = needed, depth
            heapq.heappush(heap, (-needed, -depth, key))
            while len(cached) > capacity:
                negative, negative_depth, victim = heapq.heappop(heap)
                if cached.get(victim) == (-negative, -negative_depth):
                    del cached[victim]
    return tally


def _next_uses(requests: Sequence[Request]) -> Iterator[list[int]]:
    """For each request and block, the number of the next request that has the block."""
    seen: dict[bytes, int] = {}
    backwards = []
    for number in range(len(requests) - 1, -1, -1):
        keys = requests[number].blocks
        backwards.append([seen.get(key, _NEVER) for key in keys])
        seen.update(dict.fromkeys(keys, number))
    return reversed(backwards)
