"""Servers with the result cache turned on, before a scripted decoder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from longspan.client import AsyncClient
from longspan.server.pool.config import PoolConfig
from longspan.server.results.levels import Level
from longspan.server.results.results import Results
from longspan.server.results.stats import ResultStats
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.conversation import store, tenant
from tests.e2e.generation import Written, generating, hear, prompt
from tests.pool.harness import until
from tests.pool.stories import stories
from tests.support.serving import Serving

KEY_DIGITS = 64
TEXT = "The supplier pays. The customer is told within 20 hours. " * 40
# The scripted worker's words follow from the seed, at any temperature.
GREEDY = {"max_tokens": 24, "temperature": 0.0, "seed": 1}


@asynccontextmanager
async def caching(
    folder: Path, *options: str, pool: PoolConfig | None = None, **settings: Any
) -> AsyncIterator[Serving]:
    """A server whose decoder is scripted; both levels are on unless told otherwise."""
    on = {"result_cache_memory": 1 << 20, "result_cache_disk": 1 << 20}
    limits = {"kv_free_space_bytes": 0}
    settings = {**on, "limits": limits, **settings}
    async with generating(folder, pool or stories(*options), **settings) as serving:
        yield serving


def results_of(serving: Serving) -> Results:
    """The cache of a server."""
    return serving.server.application.results


def stats_of(serving: Serving) -> ResultStats:
    """What it has done."""
    return results_of(serving).stats()


async def document(serving: Serving, text: str = TEXT, name: str = "") -> str:
    """Store a document; its id."""
    metadata = tenant(name) if name else None
    stored = await store(serving.documents, text.encode(), metadata)
    return stored.document_id


def call(serving: Serving, ids: list[str] | str, task: pb.Task, **options: Any) -> Any:
    """One call about stored documents."""
    named = [ids] if isinstance(ids, str) else ids
    request = pb.GenerateRequest(document_ids=named, task=task)
    return serving.inference.Generate(request, **options)


async def told(serving: Serving, ids: list[str] | str, task: pb.Task, **options: Any) -> Written:
    """What it says, once what was made before is kept."""
    await results_of(serving).kept()
    return await hear(call(serving, ids, task, **options))


def greedy(text: str = "Go on.", **options: Any) -> pb.Task:
    """A deterministic task."""
    return prompt(text, **{**GREEDY, **options})


def level(written: Written) -> str | None:
    """Where an answer was found; None is a miss."""
    use = written.end.cache
    if not use.hit:
        return None
    return {
        pb.CACHE_LEVEL_MEMORY: Level.MEMORY.value,
        pb.CACHE_LEVEL_REDIS: Level.REDIS.value,
        pb.CACHE_LEVEL_DISK: Level.DISK.value,
        pb.CACHE_LEVEL_FLIGHT: Level.FLIGHT.value,
    }[use.level]


async def first_words(one: Any) -> str:
    """The first piece of text that a running call says."""
    async for event in one:
        if event.WhichOneof("event") == "delta":
            return str(event.delta.text)
    raise AssertionError("it said nothing")


async def joined(serving: Serving, count: int) -> None:
    """Wait until so many calls run."""
    await until(lambda: serving.server.application.admission.active == count)


def record_files(folder: Path) -> list[Path]:
    """The files of the answers on disk, where ``folder`` was given to ``caching``."""
    files = (folder / "data" / "results").rglob("*")
    return [file for file in files if file.is_file() and len(file.stem) == KEY_DIGITS]


def client_of(serving: Serving) -> AsyncClient:
    """A client of the server."""
    return AsyncClient(serving.target)
