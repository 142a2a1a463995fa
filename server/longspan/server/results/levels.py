"""Where an answer given before was found."""

from __future__ import annotations

from enum import StrEnum


class Level(StrEnum):
    """A level of the cache."""

    MEMORY = "memory"
    REDIS = "redis"
    DISK = "disk"
    # An equal request that was running.
    FLIGHT = "flight"
