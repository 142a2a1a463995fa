"""The dispatcher over real worker processes that behave."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from longspan.server.errors import DeadlineExceeded, Draining, EncodeFailed, QueueFull
from longspan.server.queue.dispatcher import Dispatcher
from longspan.server.queue.fair_queue import QueueLimits
from tests.pool.harness import (
    check_childless,
    config,
    encode,
    expected,
    request,
    running,
    text,
    until,
)

REFUSED = 13


def _in_flight(dispatcher: Dispatcher) -> int:
    return sum(entry.jobs for entry in dispatcher.stats().in_flight)


async def test_vectors_come_back_in_the_order_of_the_texts() -> None:
    async with running(config(workers=2)) as dispatcher:
        texts = [text(1, 2, 3), text(), text(4)]
        vectors = await encode(dispatcher, *texts, info=request())
        assert vectors.dtype == np.float32
        assert np.array_equal(vectors, expected(*texts))
        assert dispatcher.model is not None
        assert dispatcher.model.fingerprint == "f00d"


async def test_a_refused_job_fails_alone() -> None:
    async with running(config("--refuse", str(REFUSED))) as dispatcher:
        bad = encode(dispatcher, text(REFUSED), info=request(), wait_ms=20)
        good = encode(dispatcher, text(1), info=request(), wait_ms=20)
        failed, vectors = await asyncio.gather(bad, good, return_exceptions=True)
        assert isinstance(failed, EncodeFailed)
        assert "REFUSED: as asked" in str(failed)
        assert isinstance(vectors, np.ndarray)


async def test_cancelling_takes_a_job_out_of_the_queue_and_out_of_a_worker() -> None:
    async with running(config("--step-s", "0.2", window_tokens=1)) as dispatcher:
        running_job = asyncio.create_task(encode(dispatcher, text(1), info=request()))
        queued_info = request()
        queued = asyncio.create_task(encode(dispatcher, text(2), info=queued_info))
        await until(lambda: dispatcher.stats().queued_jobs == 1)
        assert dispatcher.position(queued_info.request_id) == 0
        for task in (queued, running_job):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert dispatcher.stats().queued_jobs == 0
        assert dispatcher.position(queued_info.request_id) is None
        assert _in_flight(dispatcher) == 1
        await until(lambda: _in_flight(dispatcher) == 0)


async def test_a_deadline_passes_in_the_queue_and_in_a_worker() -> None:
    async with running(config("--step-s", "0.4", window_tokens=1)) as dispatcher:
        now = asyncio.get_running_loop().time()
        started = asyncio.create_task(
            encode(dispatcher, text(1), info=request(deadline_s=now + 0.1))
        )
        queued = encode(dispatcher, text(2), info=request(deadline_s=now + 0.05))
        patient = asyncio.create_task(
            encode(dispatcher, text(3), info=request(deadline_s=now + 5.0))
        )
        await asyncio.sleep(0)
        with pytest.raises(DeadlineExceeded):
            await queued
        assert _in_flight(dispatcher) == 1
        with pytest.raises(DeadlineExceeded):
            await started
        assert 0.05 < asyncio.get_running_loop().time() - now < 0.3
        assert np.array_equal(await patient, expected(text(3)))


async def test_a_deadline_in_the_past_never_reaches_a_worker() -> None:
    async with running(config()) as dispatcher:
        with pytest.raises(DeadlineExceeded):
            await encode(dispatcher, text(1), info=request(deadline_s=0.0))
        assert _in_flight(dispatcher) == 0


async def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    limits = QueueLimits(tokens=100, jobs=4, tenant_share=0.5)
    async with running(config("--step-s", "0.1", "--batch", "1", window_tokens=1), limits) as busy:
        jobs = [asyncio.create_task(encode(busy, text(n), info=request())) for n in range(3)]
        await until(lambda: busy.stats().queued_jobs == 2)
        with pytest.raises(QueueFull) as refused:
            await encode(busy, text(9), info=request())
        assert 0.1 <= refused.value.retry_after_s <= 60.0
        other = encode(busy, text(4), info=request(tenant="b"))
        assert np.array_equal(await other, expected(text(4)))
        await asyncio.gather(*jobs)


async def test_draining_finishes_the_old_and_refuses_the_new() -> None:
    async with running(config("--step-s", "0.1", window_tokens=1)) as dispatcher:
        jobs = [asyncio.create_task(encode(dispatcher, text(n), info=request())) for n in range(3)]
        await until(lambda: _in_flight(dispatcher) == 1)
        assert not await dispatcher.drain(0.01)
        with pytest.raises(Draining):
            await encode(dispatcher, text(9), info=request())
        assert await dispatcher.drain(5.0)
        assert all(job.done() for job in jobs)


async def test_stopping_answers_everyone_who_waits() -> None:
    dispatcher = Dispatcher(config("--step-s", "5", window_tokens=1), QueueLimits())
    dispatcher.start()
    await dispatcher.wait_ready()
    jobs = [asyncio.create_task(encode(dispatcher, text(n), info=request())) for n in range(3)]
    await until(lambda: _in_flight(dispatcher) == 1)
    await dispatcher.stop()
    errors = await asyncio.gather(*jobs, return_exceptions=True)
    assert [type(error) for error in errors] == [Draining] * 3
    dispatcher.check_idle()
    check_childless()


async def test_jobs_wait_for_a_worker_that_is_still_starting() -> None:
    dispatcher = Dispatcher(config(), QueueLimits())
    dispatcher.start()
    vectors = await encode(dispatcher, text(5), info=request())
    assert np.array_equal(vectors, expected(text(5)))
    await dispatcher.stop()
    check_childless()


async def test_a_job_too_large_for_one_message_is_refused_before_it_is_queued() -> None:
    async with running(config()) as dispatcher:
        with pytest.raises(ValueError, match="a job holds"):
            await encode(dispatcher, *[text(1)] * 257, info=request())
        with pytest.raises(ValueError, match="a job holds"):
            await encode(dispatcher, info=request())


async def test_only_a_window_of_tokens_is_in_flight() -> None:
    async with running(config("--step-s", "0.02", window_tokens=10)) as dispatcher:
        jobs = [
            asyncio.create_task(encode(dispatcher, text(*range(4)), info=request()))
            for _ in range(20)
        ]
        most = 0
        while not all(job.done() for job in jobs):
            (entry,) = dispatcher.stats().in_flight
            most = max(most, entry.tokens)
            await asyncio.sleep(0.002)
        assert 10 <= most < 14
        assert len({(await job).tobytes() for job in jobs}) == 1
