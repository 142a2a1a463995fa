"""How a worker process ends: signals, a dead parent, and starts that cannot succeed."""

from __future__ import annotations

import asyncio
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from longspan.worker.failures import EXIT_BAD_MODEL
from longspan.worker.model_files import find_model
from tests.worker.harness import LONG, SHORT, Stream, Worker, opened, started
from tests.worker.models import save_tiny_model, skip_without_embedded


@pytest.fixture
def worker() -> Iterator[Worker]:
    """A worker of its own that watches its standard input."""
    skip_without_embedded()
    with started("embedded", "--watch-stdin") as worker:
        worker.wait_ready()
        yield worker


async def test_a_killed_worker_has_named_its_suspects(worker: Worker) -> None:
    async with opened(worker) as (stream, _):
        await stream.encode(1, [LONG] * 320)
        await stream.until_running(1)
        worker.process.kill()
        with pytest.raises(grpc.aio.AioRpcError) as death:
            await stream.next_end()
        assert stream.heartbeats[-1].running == [1]
        assert death.value.code() is grpc.StatusCode.UNAVAILABLE
    assert worker.process.wait(5) == -signal.SIGKILL


async def test_a_stopped_worker_sends_no_heartbeats_until_it_goes_on(worker: Worker) -> None:
    times: list[float] = []

    async def collect(stream: Stream) -> None:
        while True:
            await stream.next_heartbeat()
            times.append(time.monotonic())

    async with opened(worker) as (stream, _):
        task = asyncio.create_task(collect(stream))
        await asyncio.sleep(0.6)
        worker.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5)
        worker.process.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.6)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    gaps = sorted(np.diff(times))
    assert gaps[-1] > 1.2
    assert gaps[-2] < 0.5


async def test_the_end_of_standard_input_ends_a_busy_worker(worker: Worker) -> None:
    async with opened(worker) as (stream, _):
        await stream.encode(1, [LONG] * 320)
        await stream.until_running(1)
        assert worker.process.stdin is not None
        worker.process.stdin.close()
        assert worker.process.wait(1.0) == 0


async def test_sigterm_finishes_the_running_step_and_names_what_is_left(worker: Worker) -> None:
    async with opened(worker) as (stream, _):
        await stream.encode(1, [LONG] * 16)
        await stream.encode(2, [SHORT], max_wait_ms=60_000)
        await stream.until_running(1)
        worker.process.terminate()
        assert (await stream.next_end()).encoded.job_id == 1
        with pytest.raises(grpc.aio.AioRpcError) as end:
            await stream.next_end()
        assert end.value.code() is grpc.StatusCode.UNAVAILABLE
        assert end.value.details() == "the worker is stopping; 1 jobs were not run"
    assert await asyncio.to_thread(worker.process.wait, 5) == 0


async def test_the_socket_is_private_and_cannot_be_taken_over(worker: Worker) -> None:
    assert stat.S_IMODE(worker.socket.stat().st_mode) & 0o077 == 0
    rival = Worker(worker.socket.parent, "embedded", afresh=True)
    try:
        assert await asyncio.to_thread(rival.process.wait, 60) == EXIT_BAD_MODEL
        assert f"socket {worker.socket} is in use" in rival.errors()
    finally:
        rival.close()
    async with opened(worker) as (stream, _):
        await stream.encode(1, [SHORT])
        assert (await stream.next_end()).encoded.job_id == 1


def test_a_socket_left_behind_by_a_dead_worker_is_replaced(tmp_path: Path) -> None:
    with started(str(save_tiny_model(tmp_path)), afresh=True) as worker:
        worker.wait_ready()
        worker.process.kill()
        worker.process.wait()
        assert worker.socket.exists()
        heir = Worker(worker.socket.parent, str(tmp_path), afresh=True)
        try:
            deadline = time.monotonic() + 30
            while not _answers(worker.socket):
                assert heir.process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            heir.close()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def test_corrupted_weights_end_the_start_with_one_line(tmp_path: Path) -> None:
    weights = save_tiny_model(tmp_path) / "model.safetensors"
    digest = find_model(str(tmp_path)).fingerprint
    (tmp_path / "model.safetensors.sha256").write_text(f"{digest}  model.safetensors\n")
    assert find_model(str(tmp_path)).fingerprint == digest
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with started(str(tmp_path), afresh=True) as worker:
        assert worker.process.wait(60) == EXIT_BAD_MODEL
        errors = worker.errors()
    assert errors.startswith("longspan-worker: checksum mismatch")
    assert errors.count("\n") == 1


def test_a_missing_folder_ends_the_start_with_one_line(tmp_path: Path) -> None:
    with started(str(tmp_path / "absent"), afresh=True) as worker:
        assert worker.process.wait(60) == EXIT_BAD_MODEL
        errors = worker.errors()
    assert errors == f"longspan-worker: model folder {tmp_path / 'absent'} does not exist\n"
