"""A real Redis for tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from benchmarks.redis_process import RedisProcess, redis_process


@contextmanager
def redis_or_skip(folder: Path, *options: str) -> Iterator[RedisProcess]:
    """A running Redis; skips where it is not installed."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    with redis_process(folder, *options) as redis:
        yield redis
