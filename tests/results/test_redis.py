"""Level 1 in a real Redis: it may die, hang, forget or lie; no request notices."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from benchmarks.redis_process import RedisProcess

from longspan.blobstore.breaker import BreakerLimits, State
from longspan.server.config import load_config
from longspan.server.errors import ConfigError
from longspan.server.identity import Tenant
from longspan.server.results.first_level import Owner, RedisLevel
from longspan.server.results.opening import open_results
from longspan.server.results.redis_cache import PREFIX, client_of
from tests.pool.harness import until
from tests.results.records import OWNER, key_of, record, text_of
from tests.results.redis_process import redis_or_skip

# Longer than a busy machine takes to answer, and shorter than a test waits.
LIMITS = BreakerLimits(failures=2, slow_s=0.25, pause_s=0.1, longest_pause_s=0.1)
OTHER = Owner(Tenant("berta"), "doc_1,doc_2")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    """A running Redis."""
    with redis_or_skip(tmp_path / "redis") as process:
        yield process


@asynccontextmanager
async def level_of(url: str, ttl_s: float = 60.0) -> AsyncIterator[RedisLevel]:
    """Level 1 in this Redis."""
    level = RedisLevel(url, ttl_s, LIMITS)
    try:
        yield level
    finally:
        await level.close()


async def _opened(level: RedisLevel) -> None:
    """Ask until the breaker is open."""
    async with asyncio.timeout(10.0):
        while level.breaker is not State.OPEN:
            assert await level.get(key_of(1), OWNER) is None


async def _closed(level: RedisLevel) -> None:
    """Ask until the breaker is closed again."""
    async with asyncio.timeout(10.0):
        while level.breaker is not State.CLOSED:
            await level.get(key_of(1), OWNER)
            await asyncio.sleep(0.01)


async def test_records_go_there_and_come_back(redis: RedisProcess) -> None:
    async with level_of(redis.url) as level:
        await level.put(record(1, "One."), OWNER)
        await level.put(record(2, "Two."), OTHER)
        assert text_of(await level.get(key_of(1), OWNER)) == "One."
        assert await level.get(key_of(2), OWNER) is None
        assert await level.get(key_of(1), OTHER) is None
        assert await level.remove(Tenant("berta"), "doc_2") == 1
        assert await level.get(key_of(2), OTHER) is None
        assert await level.remove(Tenant("anna"), "doc_9") == 0
        await level.put(record(2, "Two."), OTHER)
        assert await level.remove(Tenant("anna")) == 1
        assert text_of(await level.get(key_of(2), OTHER)) == "Two."
        assert await level.remove(None) == 1


async def test_redis_is_told_how_long_to_keep_them(redis: RedisProcess) -> None:
    async with level_of(redis.url, ttl_s=60.0) as level:
        await level.put(record(1), OWNER)
        [name] = await _names(redis)
        left = int(redis.command("PTTL", name)[1:].split()[0])
        assert 30_000 < left <= 60_000


async def _names(redis: RedisProcess) -> list[str]:
    client = client_of(redis.url, 1.0)
    names = [name.decode() async for name in client.scan_iter(match=PREFIX + "*")]
    await client.aclose()
    return names


async def test_what_is_no_record_of_this_request_is_a_miss(redis: RedisProcess) -> None:
    async with level_of(redis.url) as level:
        await level.put(record(1), OWNER)
        [name] = await _names(redis)
        client = client_of(redis.url, 1.0)
        good = await client.get(name)
        assert isinstance(good, bytes)
        for bad in (b"", b"x", good[:-1], good[:-1] + b"x"):
            await client.set(name, bad)
            assert await level.get(key_of(1), OWNER) is None
        await level.put(record(2), OWNER)
        [other] = [one for one in await _names(redis) if one != name]
        swapped = await client.get(other)
        assert isinstance(swapped, bytes)
        await client.set(name, swapped)
        assert await level.get(key_of(1), OWNER) is None
        await client.lpush("list", "x")
        await client.rename("list", name)
        assert await level.get(key_of(1), OWNER) is None
        await client.aclose()
        assert level.breaker is State.CLOSED


async def test_a_killed_redis_is_left_alone_and_found_again(redis: RedisProcess) -> None:
    async with level_of(redis.url) as level:
        await level.put(record(1, "One."), OWNER)
        redis.kill()
        await _opened(level)
        await level.put(record(1, "One."), OWNER)
        assert await level.remove(Tenant("anna")) == 0
        redis.start()
        await _closed(level)
        assert await level.get(key_of(1), OWNER) is None
        await level.put(record(1, "One."), OWNER)
        assert text_of(await level.get(key_of(1), OWNER)) == "One."


async def test_a_hanging_redis_is_left_alone_and_found_again(redis: RedisProcess) -> None:
    async with level_of(redis.url) as level:
        await level.put(record(1, "One."), OWNER)
        redis.send(signal.SIGSTOP)
        await _opened(level)
        redis.send(signal.SIGCONT)
        await _closed(level)
        assert text_of(await level.get(key_of(1), OWNER)) == "One."


async def test_while_one_request_tries_others_do_not_wait(redis: RedisProcess) -> None:
    async with level_of(redis.url) as level:
        redis.send(signal.SIGSTOP)
        await _opened(level)
        await asyncio.sleep(LIMITS.pause_s * 1.5)
        probe = asyncio.create_task(level.get(key_of(1), OWNER))
        await asyncio.sleep(0)
        assert level.breaker is State.HALF_OPEN
        # Without waiting: the probe has not ended.
        assert (
            await asyncio.gather(*(level.get(key_of(1), OWNER) for _ in range(50))) == [None] * 50
        )
        assert not probe.done()
        assert await probe is None
        redis.send(signal.SIGCONT)


async def test_a_redis_that_wants_a_password_is_a_miss(tmp_path: Path) -> None:
    with redis_or_skip(tmp_path / "redis") as redis:
        redis.command("CONFIG", "SET", "requirepass", "secret")
        async with level_of(redis.url) as level:
            await level.put(record(1), OWNER)
            assert await level.get(key_of(1), OWNER) is None
        async with level_of(redis.url.replace("//", "//:secret@")) as level:
            await level.put(record(1, "One."), OWNER)
            assert text_of(await level.get(key_of(1), OWNER)) == "One."


async def test_a_cluster_keeps_records_and_may_die(tmp_path: Path) -> None:
    """One node that has all slots."""
    options = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf")
    with redis_or_skip(tmp_path / "redis", *options) as redis:
        redis.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        await until(lambda: b"cluster_state:ok" in redis.command("CLUSTER", "INFO"))
        url = redis.url.replace("redis://", "redis+cluster://")
        async with level_of(url) as level:
            await level.put(record(1, "One."), OWNER)
            assert text_of(await level.get(key_of(1), OWNER)) == "One."
            assert await level.remove(Tenant("anna"), "doc_1") == 1
            await level.put(record(1, "One."), OWNER)
            redis.kill()
            await _opened(level)
            redis.start()
            await _closed(level)
            await level.put(record(2, "Two."), OWNER)
            assert text_of(await level.get(key_of(2), OWNER)) == "Two."


def test_an_address_that_is_none_is_refused_at_the_start() -> None:
    for url in ("http://host:6379", "redis:host", "redis+sentinel://host"):
        with pytest.raises(ConfigError, match="result_cache_redis"):
            load_config(["--result-cache-redis", url])


async def test_a_malformed_port_is_refused_at_the_start() -> None:
    config = load_config(["--result-cache-redis", "redis://host:port", "--result-cache-disk", "0"])
    async with AsyncExitStack() as stack:
        with pytest.raises(ConfigError, match="result_cache_redis"):
            await open_results(config, stack)
