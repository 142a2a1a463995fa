"""The wire contract, spoken with a live worker process."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Iterator, Sequence

import grpc
import numpy as np
import pytest

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.model_files import EMBEDDED_SHA256
from tests.worker.harness import LONG, SHORT, Worker, opened, started
from tests.worker.models import skip_without_embedded


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """One worker for all tests of this module."""
    skip_without_embedded()
    # In bfloat16 a row depends on its place in the batch.
    with started("embedded", "--dtype", "float32") as worker:
        worker.wait_ready()
        yield worker


def vectors(event: pb.Event) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """The rows of an Encoded."""
    assert event.WhichOneof("kind") == "encoded", event
    return np.frombuffer(event.encoded.vectors, "<f4").reshape(-1, 384)


async def test_ready_describes_the_model(worker: Worker) -> None:
    async with opened(worker) as (_, ready):
        assert ready.model == "all-MiniLM-L6-v2"
        assert ready.fingerprint == EMBEDDED_SHA256
        assert (ready.dimension, ready.max_tokens) == (384, 256)
        assert ready.device == "cpu"
        assert ready.dtype == "float32"


async def test_a_job_comes_back_whole_and_in_order(worker: Worker) -> None:
    async with opened(worker) as (stream, _):
        texts = [struct.pack("<2I", 2000 + n, 3000) for n in range(100)]
        await stream.encode(1, texts)
        rows = vectors(await stream.next_end())
        await stream.encode(2, texts[::-1])
        backwards = vectors(await stream.next_end())
    assert rows.shape == (100, 384)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(rows, backwards[::-1], atol=1e-5)


async def test_patient_jobs_share_a_step(worker: Worker) -> None:
    async with opened(worker) as (stream, _):
        before = (await stream.next_heartbeat()).step
        for job in range(10):
            await stream.encode(job, [SHORT], max_wait_ms=300)
        assert [(await stream.next_end()).encoded.job_id for _ in range(10)] == list(range(10))
        assert (await stream.next_heartbeat()).step == before + 1


async def test_heartbeats_name_the_running_jobs_before_and_during_a_step(worker: Worker) -> None:
    async with opened(worker) as (stream, _):
        await stream.encode(5, [LONG] * 60)
        await stream.next_end()
        busy = [beat for beat in stream.heartbeats if beat.busy]
        assert busy
        assert all(list(beat.running) == [5] for beat in busy)
        assert {beat.step for beat in busy} >= set(range(busy[0].step, busy[0].step + 4))
        after = await stream.next_heartbeat()
        assert (after.busy, after.jobs, list(after.running)) == (False, 0, [])


async def test_heartbeats_come_at_least_twice_a_second_under_load(worker: Worker) -> None:
    async with opened(worker) as (stream, _):
        await stream.encode(1, [LONG] * 64)
        times = [time.monotonic()]
        while (await stream.next_event()).WhichOneof("kind") == "heartbeat":
            times.append(time.monotonic())
    assert np.median(np.diff(times)) < 0.5
    assert max(np.diff(times)) < 1.0


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ([], "EMPTY_JOB"),
        ([SHORT, b""], "EMPTY_TEXT"),
        ([LONG + b"\1\0\0\0"], "TEXT_TOO_LONG"),
        ([struct.pack("<I", 30522)], "BAD_TOKEN"),
        ([SHORT] * 2731, "JOB_TOO_LARGE"),
    ],
)
async def test_a_bad_job_fails_and_the_worker_lives_on(
    worker: Worker, texts: Sequence[bytes], reason: str
) -> None:
    async with opened(worker) as (stream, _):
        await stream.encode(1, texts)
        failed = (await stream.next_end()).failed
        assert (failed.job_id, failed.reason) == (1, reason)
        await stream.encode(2, [SHORT])
        assert (await stream.next_end()).encoded.job_id == 2


async def test_a_duplicate_fails_and_the_first_job_goes_on(worker: Worker) -> None:
    async with opened(worker) as (stream, _):
        await stream.encode(1, [SHORT], max_wait_ms=300)
        await stream.encode(1, [SHORT])
        assert (await stream.next_end()).failed.reason == "DUPLICATE_JOB"
        assert (await stream.next_end()).encoded.job_id == 1


async def test_a_waiting_job_is_cancelled_at_once(worker: Worker) -> None:
    async with opened(worker) as (stream, _):
        await stream.encode(1, [SHORT], max_wait_ms=60_000)
        await stream.cancel(1)
        assert (await stream.next_end()).cancelled.job_id == 1
        await stream.cancel(1)
        await stream.encode(1, [SHORT])
        assert (await stream.next_end()).encoded.job_id == 1


async def test_a_running_job_is_cancelled_at_the_end_of_its_step(worker: Worker) -> None:
    async with opened(worker) as (stream, _):
        await stream.encode(1, [LONG] * 320)
        await stream.until_running(1)
        start = time.monotonic()
        await stream.cancel(1)
        assert (await stream.next_end()).cancelled.job_id == 1
        assert time.monotonic() - start < 10.0  # all of it takes much longer
        assert (await stream.next_heartbeat()).jobs == 0


async def test_a_question_overtakes_a_document(worker: Worker) -> None:
    async with opened(worker) as (stream, _):
        await stream.encode(1, [LONG] * 64, max_wait_ms=100)
        await stream.until_running(1)
        await stream.encode(2, [SHORT])
        assert (await stream.next_end()).encoded.job_id == 2
        assert (await stream.next_end()).encoded.job_id == 1


async def test_the_largest_jobs_fit_the_message_limits(worker: Worker) -> None:
    async with opened(worker) as (stream, _):
        for job in (1, 2):
            await stream.encode(job, [SHORT[:4]] * 2730, max_wait_ms=job)
        sizes = [len(vectors(await stream.next_end())) for _ in range(2)]
    assert sizes == [2730, 2730]


async def test_a_second_stream_is_refused(worker: Worker) -> None:
    async with opened(worker) as (stream, _):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            async with opened(worker):
                pytest.fail("two streams are open")
        assert refusal.value.code() is grpc.StatusCode.ALREADY_EXISTS
        await stream.encode(1, [SHORT])
        assert (await stream.next_end()).encoded.job_id == 1


async def test_the_jobs_of_an_ended_stream_are_dropped(worker: Worker) -> None:
    async with opened(worker) as (stream, _):
        await stream.encode(1, [LONG] * 200)
        await stream.encode(2, [LONG] * 200, max_wait_ms=1000)
        await stream.until_running(1)
    await asyncio.sleep(0.1)
    async with opened(worker) as (stream, _):
        assert (await stream.next_heartbeat()).jobs == 0
        await stream.encode(1, [SHORT])
        assert len(vectors(await stream.next_end())) == 1
