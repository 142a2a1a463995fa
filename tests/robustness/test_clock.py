"""The wall clock jumps while requests run: only leases and what is shown to people notice."""

from __future__ import annotations

import ast
import asyncio
import time
from pathlib import Path

import pytest

from longspan.server.limits import Limits
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.conversation import Uploading, read_back
from tests.e2e.generation import generating, hear, prompt
from tests.e2e.raw_calls import check_resumes, store
from tests.pool.stories import stories
from tests.support.data import REPOSITORY
from tests.support.serving import serving

TEXT = b"The fee is due on Monday.\n" * 40
DAY_S = 86_400.0
# Where the time of day is read, and what for. Everything else waits by clocks that never jump.
WALL_CLOCK = {
    "server/longspan/server/store/library.py": "when documents came, and leases of uploads",
    "workers/longspan/worker/tiers/holdings.py": "how long ago pages were used, for people",
    "server/longspan/server/services/cached.py": "the age of an answer given before",
    "server/longspan/server/results/recorder.py": "when an answer was given",
    "server/longspan/server/decoder/decoder.py": "the date in chat templates",
    "server/longspan/server/auth/tokens.py": "when signed tokens run out, with leeway",
    "workers/longspan/worker/tracing/workload.py": "when spans began and ended",
    "server/longspan/blobstore/store.py": "when blobs were used, which only ranks them",
}
ROOTS = ("server/longspan", "workers/longspan", "clients/longspan")


def reads_the_time_of_day(path: Path) -> bool:
    """True where ``time.time`` or ``datetime.now`` stands in a module."""
    names = {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("datetime", "utcnow")}
    return any(
        isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in names
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
    )


def test_timeouts_are_measured_by_clocks_that_never_jump() -> None:
    modules = [path for root in ROOTS for path in (REPOSITORY / root).rglob("*.py")]
    found = {str(path.relative_to(REPOSITORY)) for path in modules if reads_the_time_of_day(path)}
    assert found == set(WALL_CLOCK)


@pytest.mark.parametrize("jump_s", [-DAY_S, -3600.0, 3600.0, 400 * DAY_S])
async def test_an_upload_goes_on_though_the_clock_jumps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    limits = Limits(chunk_wait_s=5.0)
    async with serving(tmp_path, encoder="none", limits=limits) as running:
        before = await store(running, TEXT)
        uploading = Uploading(running.documents, timeout_s=20.0)
        await uploading.open()
        data = b"another " + TEXT
        await uploading.send(data, 0, 100, 50)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + jump_s)
        # The sweep comes in the middle of it: a stream that is open keeps its upload.
        await running.server.application.desk.expire()
        await uploading.send(data, 100, len(data), 50)
        document = await uploading.finish(data)
        for one, content in ((before, TEXT), (document, data)):
            assert await read_back(running.documents, one.document_id) == content


async def test_an_upload_that_waits_is_resumed_after_a_jump_within_its_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path, encoder="none") as running:
        uploading = Uploading(running.documents)
        await uploading.open()
        await uploading.send(TEXT, 0, 500, 500)
        while uploading.acknowledged < 500:
            await uploading.hear()
        uploading.call.cancel()
        await running.settled()
        real = time.time
        for jump_s in (-DAY_S, 3600.0):
            monkeypatch.setattr(time, "time", lambda jump_s=jump_s: real() + jump_s)
            assert await running.server.application.desk.expire() == 0
        await check_resumes(running, uploading.upload_id, 500, TEXT)


@pytest.mark.parametrize("jump_s", [-DAY_S, 400 * DAY_S])
async def test_an_answer_goes_on_and_its_durations_are_positive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    async with generating(tmp_path, stories("--step-s", "0.01")) as running:
        document = await store(running, TEXT)
        request = pb.GenerateRequest(
            document_ids=[document.document_id], task=prompt(max_tokens=40)
        )
        hearing = asyncio.create_task(hear(running.inference.Generate(request, timeout=20.0)))
        await asyncio.sleep(0.1)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + jump_s)
        written = await hearing
        timings = written.end.timings
        assert 0 < timings.first_delta.ToNanoseconds() < 20e9
        assert 0 < timings.total.ToNanoseconds() < 20e9


async def test_an_answer_of_tomorrow_has_no_negative_age(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with generating(tmp_path, stories(), result_cache_memory=1 << 20) as running:
        document = await store(running, TEXT)
        request = pb.GenerateRequest(
            document_ids=[document.document_id], task=prompt(max_tokens=5, temperature=0)
        )
        await hear(running.inference.Generate(request))
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() - DAY_S)
        again = await hear(running.inference.Generate(request))
        assert again.end.cache.hit
        assert again.end.cache.age.ToNanoseconds() >= 0
