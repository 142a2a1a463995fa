"""Opens the result cache as the configuration says."""

from __future__ import annotations

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

from longspan.blobstore.breaker import BreakerLimits
from longspan.blobstore.limits import StoreLimits
from longspan.server.config import Config
from longspan.server.errors import ConfigError
from longspan.server.metrics.metrics import Metrics
from longspan.server.results.disk_level import THREADS, DiskLevel, open_disk
from longspan.server.results.first_level import FirstLevel, MemoryLevel, RedisLevel
from longspan.server.results.results import Results
from longspan.server.results.tiers import Tiers

log = logging.getLogger(__name__)

FOLDER = "results"
# What a decoder's answers follow from beside its configuration and weights: how texts become
# tokens, and which tokens end an answer.
ANSWERING = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")
# Of the disk, where there are tenants.
TENANT_SHARE = 0.5
# Most answers are shorter than what a file takes at least, on most file systems.
BLOCK_BYTES = 4096


async def open_results(
    config: Config, stack: AsyncExitStack, metrics: Metrics | None = None
) -> Results:
    """The cache; it is closed with ``stack``. Without ``metrics`` nobody looks at what it counts.

    Raises:
        ConfigError: the address of Redis is malformed.
    """
    disk = await _disk(config, stack)
    first = _first(config)
    results = Results(
        Tiers(first, disk),
        config.limits.result_record_bytes,
        None if metrics is None else metrics.results,
    )
    stack.push_async_callback(results.close)
    if isinstance(first, RedisLevel) and not await first.connect():
        log.warning("the Redis of the result cache does not answer; it will be tried again")
    return results


def files_digest(folder: Path) -> str:
    """SHA-256 of the files of a model that decide its answers and are no part of its fingerprint.

    Blocking.
    """
    digest = hashlib.sha256()
    for name in ANSWERING:
        path = folder / name
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"
        digest.update(f"{name} {content}\n".encode())
    return digest.hexdigest()


def _first(config: Config) -> FirstLevel | None:
    ttl_s, url = config.result_cache_ttl_s, config.result_cache_redis
    if url is None:
        budget = int(config.result_cache_memory)
        return MemoryLevel(budget, ttl_s) if budget else None
    limits = BreakerLimits(
        failures=3, slow_s=config.result_cache_redis_timeout_s, pause_s=0.5, longest_pause_s=5.0
    )
    try:
        return RedisLevel(url, ttl_s, limits)
    except ValueError as error:
        raise ConfigError(f"result_cache_redis: {error}") from error


async def _disk(config: Config, stack: AsyncExitStack) -> DiskLevel | None:
    if not config.result_cache_disk:
        return None
    threads = stack.enter_context(ThreadPoolExecutor(THREADS, "results"))
    share = TENANT_SHARE if config.has_tenants else 1.0
    budget, floor = int(config.result_cache_disk), config.limits.kv_free_space_bytes
    limits = StoreLimits(budget, floor, share, BLOCK_BYTES)
    return await open_disk(config.data_dir / FOLDER, limits, threads)
