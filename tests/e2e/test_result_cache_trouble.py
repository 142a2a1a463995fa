"""Redis and disk in trouble under load: requests are answered, only not from there."""

from __future__ import annotations

import asyncio
import signal
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from longspan.blobstore.breaker import State
from longspan.server.results.levels import Level
from longspan.v1 import document_service_pb2 as documents_pb
from tests.e2e.cached import (
    caching,
    call,
    document,
    greedy,
    level,
    record_files,
    results_of,
    stats_of,
    told,
)
from tests.e2e.generation import Written, hear
from tests.e2e.workers import free_port, quiet_log
from tests.pool.harness import until
from tests.results.redis_process import redis_or_skip
from tests.support.serving import Serving
from tests.support.small_disk import small_disk

QUESTIONS = 7
CLIENTS = 4


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with quiet_log(caplog):
        yield


def _fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(512)):
            pass


class Load:
    """Clients that ask a few questions again and again until told to stop."""

    def __init__(self, serving: Serving, handle: str) -> None:
        self._serving = serving
        self._handle = handle
        self._stopped = False
        self.answers: list[Written] = []
        self._asking = [asyncio.create_task(self._ask(number)) for number in range(CLIENTS)]

    async def some(self, count: int = 30) -> list[Written]:
        """The next answers."""
        start = len(self.answers)
        await until(lambda: len(self.answers) >= start + count or self._failed(), 30.0)
        return self.answers[start:]

    async def stop(self) -> None:
        """Stop asking; raises what a request raised."""
        self._stopped = True
        await asyncio.gather(*self._asking)

    def _failed(self) -> bool:
        return any(asking.done() for asking in self._asking)

    async def _ask(self, number: int) -> None:
        while not self._stopped:
            number += 1
            task = greedy(f"Question {number % QUESTIONS}?", max_tokens=6)
            self.answers.append(await hear(call(self._serving, self._handle, task)))


async def test_no_request_fails_while_redis_is_killed_hangs_and_comes_back(
    tmp_path: Path,
) -> None:
    with redis_or_skip(tmp_path / "redis") as redis:
        settings: dict[str, Any] = {"result_cache_redis": redis.url, "result_cache_disk": 0}
        async with caching(tmp_path, **settings) as serving:
            load = Load(serving, await document(serving))
            await load.some()
            await until(lambda: Level.REDIS in stats_of(serving).hits)
            redis.send(signal.SIGSTOP)
            await until(lambda: stats_of(serving).redis is State.OPEN)
            await load.some()
            redis.send(signal.SIGCONT)
            await until(lambda: stats_of(serving).redis is State.CLOSED)
            redis.kill()
            await until(lambda: stats_of(serving).redis is State.OPEN)
            await load.some()
            redis.start()
            await until(lambda: stats_of(serving).redis is State.CLOSED)
            hits = stats_of(serving).hits[Level.REDIS]
            await until(lambda: stats_of(serving).hits[Level.REDIS] > hits + QUESTIONS)
            await load.stop()
            # Started in here, it is no child that the server left.
            redis.kill()
        assert len({answer.text for answer in load.answers}) <= QUESTIONS


async def test_a_server_starts_without_its_redis(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"result_cache_redis": f"redis://127.0.0.1:{free_port()}"}
    async with caching(tmp_path, **settings) as serving:
        handle = await document(serving)
        answers = [await told(serving, handle, greedy()) for _ in range(2)]
        assert [level(answer) for answer in answers] == [None, "disk"]


async def test_two_servers_share_a_redis_until_a_document_is_deleted(tmp_path: Path) -> None:
    with redis_or_skip(tmp_path / "redis") as redis:
        settings: dict[str, Any] = {
            "result_cache_redis": redis.url,
            "result_cache_redis_timeout_s": 5.0,
            "result_cache_disk": 0,
        }
        async with caching(tmp_path / "a", **settings) as one:
            first = await told(one, await document(one), greedy())
        async with caching(tmp_path / "b", **settings) as two:
            handle = await document(two)
            second = await told(two, handle, greedy())
            assert b"longspan:results:" in redis.command("KEYS", "*")
            request = documents_pb.DeleteDocumentRequest(document_id=handle)
            await two.documents.DeleteDocument(request)
            await until(lambda: b"longspan:results:" not in redis.command("KEYS", "*"))
        assert (level(first), level(second)) == (None, "redis")
        assert second.text == first.text


async def test_a_full_disk_keeps_nothing_and_fails_nobody(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "results").mkdir()
    with small_disk(tmp_path / "data" / "results", "1m") as disk:
        async with caching(tmp_path, result_cache_memory=0) as serving:
            handle = await document(serving)
            _fill(disk)
            answers = [await told(serving, handle, greedy()) for _ in range(2)]
            assert [level(answer) for answer in answers] == [None, None]
            assert answers[0].text == answers[1].text
            (disk / "ballast").unlink()
            await results_of(serving).verify()
            await told(serving, handle, greedy())
            assert level(await told(serving, handle, greedy())) == "disk"


async def test_an_answer_of_another_version_is_made_again(tmp_path: Path) -> None:
    """One whose file is of a later format, and one that is cut short."""
    async with caching(tmp_path, result_cache_memory=0) as serving:
        handle = await document(serving)
        tasks = [greedy("One?"), greedy("Two?")]
        first = [await told(serving, handle, task) for task in tasks]
    newer, shorter = record_files(tmp_path)
    data = bytearray(newer.read_bytes())
    data[8:10] = struct.pack("<H", 99)
    newer.write_bytes(data)
    shorter.write_bytes(shorter.read_bytes()[:-5])
    async with caching(tmp_path, result_cache_memory=0) as serving:
        again = [await told(serving, handle, task) for task in tasks]
        assert [level(answer) for answer in again] == [None, None]
        assert [answer.text for answer in again] == [answer.text for answer in first]


async def test_the_disk_keeps_to_its_budget_and_drops_what_was_used_longest_ago(
    tmp_path: Path,
) -> None:
    async with caching(tmp_path, result_cache_memory=0, result_cache_disk=4 << 12) as serving:
        handle = await document(serving)
        tasks = [greedy(f"Number {number}?") for number in range(12)]
        for task in tasks:
            await told(serving, handle, task)
            await told(serving, handle, tasks[0])
        await results_of(serving).kept()
        disk = stats_of(serving).disk
        assert disk is not None
        assert disk.evicted > 0
        assert disk.bytes <= 4 << 12
        assert level(await told(serving, handle, tasks[0])) == "disk"
        assert level(await told(serving, handle, tasks[1])) is None


async def test_a_catalog_that_cannot_be_written_to_fails_no_answer(tmp_path: Path) -> None:
    """As on a disk that the kernel has made read-only: what was read is not noted, only told."""
    async with caching(tmp_path) as serving:
        handle = await document(serving)
        library = serving.server.application.library
        catalog = library._catalog
        await library._run(lambda: catalog._db.execute("PRAGMA query_only = ON"))
        written = await told(serving, handle, greedy())
        assert written.text
        assert written.end.usage.output_tokens > 0
