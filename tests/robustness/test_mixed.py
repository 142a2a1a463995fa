"""Random traffic while workers are killed and stopped at random: all answers stay what they were.

``TEST_SEED`` replays a run's choices, ``TEST_ROUNDS`` makes it longer (default 1).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.conversation import read_back
from tests.e2e.generation import generating, sequences_of
from tests.e2e.workers import quiet_log
from tests.pool.harness import until
from tests.pool.stories import stories
from tests.robustness.traffic import Traffic
from tests.support.seeds import seeded
from tests.support.serving import Serving

ROUNDS = int(os.environ.get("TEST_ROUNDS", "1"))
CLIENTS = 6
REQUESTS = 12
FAULTS = (signal.SIGKILL, signal.SIGSTOP, None)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with quiet_log(caplog):
        yield


async def disturb(serving: Serving, rng: random.Random, faults: list[str]) -> None:
    """Do something to a worker now and then, until cancelled."""
    dispatcher = sequences_of(serving)
    while True:
        await asyncio.sleep(rng.uniform(0.1, 0.5))
        fault = rng.choice(FAULTS)
        if fault is not None and dispatcher.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rng.choice(dispatcher.pids), fault)
                faults.append(fault.name)


async def test_random_traffic_is_served_alike_though_workers_die_and_hang(tmp_path: Path) -> None:
    rng = seeded()
    pool = replace(
        stories("--step-s", "0.002", "--chunk", "50", workers=2), heartbeat_timeout_s=0.6
    )
    faults: list[str] = []
    async with generating(tmp_path, pool) as serving:
        traffic = Traffic(serving, rng)
        disturbing = asyncio.create_task(disturb(serving, random.Random(rng.random()), faults))
        for _ in range(ROUNDS):
            await traffic.run(CLIENTS, REQUESTS)
        disturbing.cancel()
        await asyncio.gather(disturbing, return_exceptions=True)
        await until(lambda: sequences_of(serving).ready, 30.0)
        await serving.settled()
        for document_id, data in traffic.documents.items():
            assert await read_back(serving.documents, document_id) == data
    print(traffic.done, faults)
    assert faults
    assert traffic.answers
