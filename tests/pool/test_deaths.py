"""Workers that die, hang or refuse, as real processes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from pathlib import Path

import numpy as np
import psutil
import pytest

from longspan.server.errors import DeadlineExceeded, DocumentQuarantined, WorkersUnavailable
from longspan.server.pool.config import PoolConfig
from longspan.server.queue.dispatcher import Dispatcher
from longspan.server.queue.fair_queue import QueueLimits
from tests.pool.harness import (
    check_childless,
    config,
    encode,
    expected,
    request,
    running,
    send_signal,
    text,
    until,
)
from tests.support.seeds import seeded

POISON = 666


async def _kill_at_random(dispatcher: Dispatcher, done: list[int], rng: random.Random) -> int:
    """Kill after some answers, never twice within one window's worth of them."""
    kills = 0
    while (target := len(done) + rng.randint(7, 11)) < 48:
        await until(lambda target=target: len(done) >= target)  # type: ignore[misc]
        await asyncio.sleep(rng.uniform(0.0, 0.03))
        send_signal(dispatcher, signal.SIGKILL)
        kills += 1
    return kills


async def test_fifty_jobs_survive_a_worker_that_is_killed_at_random_moments() -> None:
    rng = seeded()
    done: list[int] = []

    async with running(config("--step-s", "0.02", "--batch", "2", window_tokens=8)) as dispatcher:
        info = request()

        async def one(number: int) -> None:
            ids = text(number, number + 1)
            vectors = await encode(dispatcher, ids, info=info)
            assert np.array_equal(vectors, expected(ids))
            done.append(number)

        killer = asyncio.create_task(_kill_at_random(dispatcher, done, rng))
        await asyncio.gather(*(one(number) for number in range(50)))
        kills = await killer
        assert sorted(done) == list(range(50))
        assert 2 <= kills <= info.stats.retries
        await until(lambda: dispatcher.stats().restarts == kills)


async def test_one_of_two_workers_dies_and_the_other_goes_on() -> None:
    async with running(config("--step-s", "0.02", workers=2, window_tokens=4)) as dispatcher:
        await until(lambda: len(dispatcher.stats().in_flight) == 2)
        info = request()
        jobs = [asyncio.create_task(encode(dispatcher, text(n), info=info)) for n in range(30)]
        await jobs[5]
        victim, survivor = dispatcher.pids
        os.kill(victim, signal.SIGKILL)
        vectors = await asyncio.gather(*jobs)
        assert np.array_equal(np.concatenate(vectors), expected(*(text(n) for n in range(30))))
        assert survivor in dispatcher.pids
        assert info.stats.retries <= 4


async def test_a_stopped_process_is_noticed_and_its_job_completes_elsewhere() -> None:
    options = ("--step-s", "0.3")
    async with running(config(*options, heartbeat_timeout_s=0.6)) as dispatcher:
        info = request()
        job = asyncio.create_task(encode(dispatcher, text(1), info=info))
        await until(lambda: any(entry.jobs for entry in dispatcher.stats().in_flight))
        stopped = dispatcher.pids
        started_s = time.monotonic()
        send_signal(dispatcher, signal.SIGSTOP)
        await until(lambda: info.stats.retries == 1)
        assert 0.4 < time.monotonic() - started_s < 3.0
        assert np.array_equal(await job, expected(text(1)))
        assert dispatcher.pids != stopped


async def test_a_worker_that_stays_in_one_step_is_killed_though_its_heart_beats() -> None:
    options = ("--hang", str(POISON))
    async with running(config(*options, step_timeout_s=0.3, heartbeat_timeout_s=0.6)) as dispatcher:
        with pytest.raises(DocumentQuarantined):
            await encode(dispatcher, text(POISON), info=request())
        await until(lambda: dispatcher.stats().restarts == 2)


@pytest.mark.parametrize("heartbeats", [("--announce",), ("--beat-s", "0.5")])
async def test_poison_is_quarantined_after_two_deaths_and_its_neighbour_completes(
    heartbeats: tuple[str, ...],
) -> None:
    async with running(config("--poison", str(POISON), *heartbeats)) as dispatcher:
        bad, good = request("bad"), request("good")
        poison = asyncio.create_task(encode(dispatcher, text(POISON), info=bad, wait_ms=50))
        neighbour = asyncio.create_task(encode(dispatcher, text(7), info=good, wait_ms=50))
        with pytest.raises(DocumentQuarantined, match="bad"):
            await poison
        assert np.array_equal(await neighbour, expected(text(7)))
        assert good.stats.retries == 1
        with pytest.raises(DocumentQuarantined, match="bad"):
            await encode(dispatcher, text(1), info=request("bad"))
        assert np.array_equal(
            await encode(dispatcher, text(8), info=request("good")), expected(text(8))
        )
        assert dispatcher.stats().restarts == 2


async def test_quarantine_ends_what_else_waits_for_the_document() -> None:
    async with running(config("--poison", str(POISON), window_tokens=1)) as dispatcher:
        info = request("bad")
        jobs = [encode(dispatcher, text(POISON), info=info)]
        jobs += [encode(dispatcher, text(number), info=info) for number in range(5)]
        errors = await asyncio.gather(*jobs, return_exceptions=True)
        assert [type(error) for error in errors] == [DocumentQuarantined] * 6


async def test_a_bad_model_is_not_tried_again_and_its_reason_is_told() -> None:
    dispatcher = Dispatcher(config("--exit-status", "3"), QueueLimits())
    dispatcher.start()
    waiting = asyncio.create_task(encode(dispatcher, text(1), info=request()))
    with pytest.raises(WorkersUnavailable, match="model not usable: no such file"):
        await waiting
    with pytest.raises(WorkersUnavailable, match="model not usable"):
        await dispatcher.wait_ready()
    with pytest.raises(WorkersUnavailable):
        await encode(dispatcher, text(1), info=request())
    assert dispatcher.stats().restarts == 0
    dispatcher.check_idle()
    await dispatcher.stop()
    check_childless()


async def test_other_exit_statuses_are_tried_again_while_jobs_wait_for_their_deadline() -> None:
    dispatcher = Dispatcher(config("--exit-status", "1"), QueueLimits())
    dispatcher.start()
    deadline_s = asyncio.get_running_loop().time() + 0.3
    with pytest.raises(DeadlineExceeded):
        await encode(dispatcher, text(1), info=request(deadline_s=deadline_s))
    await until(lambda: dispatcher.stats().restarts >= 2)
    assert not dispatcher.ready
    dispatcher.check_idle()
    await dispatcher.stop()
    check_childless()


async def test_too_little_memory_is_final_only_for_a_model_that_never_fitted(
    tmp_path: Path,
) -> None:
    """What was short when a dead worker was replaced comes back, and the worker with it."""
    starts = ["--starts", str(tmp_path / "starts"), "--memory-from", "4"]
    async with running(config(*starts)) as dispatcher:
        send_signal(dispatcher, signal.SIGKILL)
        await until(lambda: not dispatcher.ready)
        assert np.array_equal(await encode(dispatcher, text(8), info=request()), expected(text(8)))
        assert (tmp_path / "starts").read_text() == "xxxx"
    dispatcher = Dispatcher(config("--exit-status", "4"), QueueLimits())
    dispatcher.start()
    with pytest.raises(WorkersUnavailable, match="exit status 4"):
        await dispatcher.wait_ready()
    await dispatcher.stop()


async def test_a_worker_that_never_gets_ready_is_killed_and_replaced() -> None:
    settings = config("--never-ready", start_timeout_s=0.5, heartbeat_timeout_s=0.6)
    dispatcher = Dispatcher(settings, QueueLimits())
    dispatcher.start()
    await until(lambda: dispatcher.stats().restarts >= 1)
    await dispatcher.stop()
    check_childless()


async def test_a_replacement_with_another_model_is_refused() -> None:
    dispatcher = Dispatcher(config("--fingerprint-of-pid"), QueueLimits())
    dispatcher.start()
    await dispatcher.wait_ready()
    send_signal(dispatcher, signal.SIGKILL)
    await until(lambda: not dispatcher.ready)
    with pytest.raises(WorkersUnavailable, match="the pool serves"):
        await encode(dispatcher, text(1), info=request())
    await dispatcher.stop()
    check_childless()


async def test_a_program_that_is_not_there_is_retried_until_stopped() -> None:
    settings = PoolConfig(command=lambda path, slot: ["/nonexistent/worker"], first_backoff_s=0.01)
    dispatcher = Dispatcher(settings, QueueLimits())
    dispatcher.start()
    await until(lambda: dispatcher.stats().restarts >= 2)
    await dispatcher.stop()


async def test_health_follows_the_workers() -> None:
    seen: list[bool] = []
    dispatcher = Dispatcher(config(), QueueLimits(), health_changed=seen.append)
    dispatcher.start()
    await dispatcher.wait_ready()
    send_signal(dispatcher, signal.SIGKILL)
    await until(lambda: seen == [True, False, True])
    await dispatcher.stop()
    assert seen == [True, False, True, False]
    check_childless()


async def test_workers_end_when_the_server_is_killed() -> None:
    with tempfile.TemporaryDirectory(prefix="longspan-") as folder:
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.pool.abandoned_server"),
            stdout=PIPE,
            env={**os.environ, "TMPDIR": folder},
        )
        assert server.stdout is not None
        pids = [int(pid) for pid in (await server.stdout.readline()).split()]
        assert len(pids) == 2
        server.kill()
        await server.wait()
        await until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
