"""Random numbers that a failed run can be given again."""

from __future__ import annotations

import os
import random
import time


def seeded() -> random.Random:
    """Seeded by ``TEST_SEED``, else by the clock; the seed is printed, so that a run replays."""
    seed = int(os.environ.get("TEST_SEED", time.time_ns() % 2**32))
    print(f"TEST_SEED={seed}")
    return random.Random(seed)
