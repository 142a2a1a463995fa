"""Random numbers that belong to a request: each follows from its seed and index alone."""

from __future__ import annotations

import hashlib

BITS = 52
"""Of one number; with one bit more, its product with a sum could round up to the sum."""


def uniform(seed: int, index: int) -> float:
    """The number at ``index`` of the stream of ``seed``, uniform in [0, 1).

    Counter-based (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011) with
    SHA-256 as the function: there is no state, so any worker can go on where another stopped.
    """
    counter = seed.to_bytes(8, "little") + index.to_bytes(8, "little")
    drawn = int.from_bytes(hashlib.sha256(counter).digest()[:8], "little")
    return (drawn >> (64 - BITS)) / (1 << BITS)
