"""Decoder workers are killed and stopped amid real answers, structured ones too.

``TEST_GENERATIONS`` and ``TEST_KILLS`` say how many (default 24 and 3).
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.conversation import analyze_messages
from tests.e2e.generation import Written, hear, prompt, sequences_of
from tests.e2e.real_decoders import (
    STORY,
    answering,
    slowly,
    stories_folder,
    streaming_decoder,
)
from tests.e2e.workers import quiet_log
from tests.pool.harness import until
from tests.support.seeds import seeded
from tests.support.serving import Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

GENERATIONS = int(os.environ.get("TEST_GENERATIONS", "24"))
OF_SCHEMA = 10
OF_REGEX = 5
LANES = 10
WORKERS = 2
KILLS = int(os.environ.get("TEST_KILLS", "3"))
HEARTBEAT_S = 2.0
RESTART_S = 60.0
FORM = r"(Lily|Tom) (saw|had) a (big|red) (ball|cat|dog)\."
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"enum": ["Lily", "Tom"]}, "big": {"type": "boolean"}},
        "required": ["name", "big"],
        "additionalProperties": False,
    }
)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with quiet_log(caplog):
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def serving(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """Two workers of the model that writes stories."""
    folder = tmp_path_factory.mktemp("deaths")
    settings = {"model_workers": WORKERS, "heartbeat_timeout_s": HEARTBEAT_S}
    async with answering(folder, stories_folder(), **settings) as serving:
        yield serving


def _task(number: int) -> pb.Task:
    """Greedy and sampled, free and structured tasks, each with a seed of its own."""
    words = f"Tell story {number}."
    if number < OF_SCHEMA:
        return prompt(words, max_tokens=300, seed=number, temperature=0.8, json_schema=SCHEMA)
    if number < OF_SCHEMA + OF_REGEX:
        return prompt(words, max_tokens=60, seed=number, temperature=0.8, regex=FORM)
    return prompt(words, max_tokens=60, seed=number, temperature=0.9 * (number % 2))


async def _told(serving: Serving, number: int, rng: random.Random) -> Written:
    """One generation, its document in small chunks, with pauses in some uploads."""
    messages: Iterator[Any] = analyze_messages(STORY.encode(), _task(number), 40)
    pause_s = rng.choice((0.0, 0.0, 0.1))
    return await hear(serving.inference.Analyze(slowly(messages, rng, pause_s)))


async def _in_lanes(serving: Serving, rng: random.Random) -> list[Written]:
    lanes = asyncio.Semaphore(LANES)

    async def one(number: int) -> Written:
        async with lanes:
            return await _told(serving, number, rng)

    return await asyncio.gather(*(one(number) for number in range(GENERATIONS)))


async def _kill(serving: Serving, rng: random.Random) -> None:
    """Kill one worker or both at random moments, again and again."""
    dispatcher, kills = sequences_of(serving), 0
    while kills < KILLS:
        await asyncio.sleep(rng.uniform(0.05, 1.2))
        if dispatcher.ready:
            for pid in rng.sample(dispatcher.pids, rng.randint(1, len(dispatcher.pids))):
                # One that was killed a moment ago may still count as running.
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            kills += 1


def _compare(actual: Written, expected: Written) -> None:
    """All but timings, cached tokens and retries."""
    assert actual.text == expected.text
    assert actual.end.finish_reason == expected.end.finish_reason
    assert actual.events.count("completed") == 1
    assert actual.events[-1] == "completed"
    for name in ("document_tokens", "task_tokens", "output_tokens"):
        assert getattr(actual.end.usage, name) == getattr(expected.end.usage, name)


async def test_generations_are_byte_identical_though_their_workers_are_killed(
    serving: Serving,
) -> None:
    """Text, reason and counts equal the undisturbed run's; some answers were taken up again."""
    rng = seeded()
    expected = await _in_lanes(serving, rng)
    assert all(json.loads(one.text)["name"] for one in expected[:OF_SCHEMA])
    assert all(re.fullmatch(FORM, one.text) for one in expected[OF_SCHEMA:][:OF_REGEX])
    assert len({one.text for one in expected}) > GENERATIONS // 2
    killing = asyncio.create_task(_kill(serving, rng))
    retried = waves = 0
    while not killing.done():
        for actual, wanted in zip(await _in_lanes(serving, rng), expected, strict=True):
            _compare(actual, wanted)
            retried += actual.end.usage.retries > 0
        waves += 1
    await killing
    print(f"{KILLS} kills, {waves} waves, {retried} answers retried")
    assert retried >= max(1, KILLS // 2)
    await serving.settled()


async def test_stopped_workers_are_replaced_and_their_answers_go_on(serving: Serving) -> None:
    """Workers that fall silent together are killed; their answers end as they would have."""
    dispatcher, rng = sequences_of(serving), seeded()
    # A worker that has not begun to beat may take half an hour to load its weights.
    await until(lambda: len(dispatcher.stats().in_flight) == WORKERS, RESTART_S)
    numbers = range(OF_SCHEMA, OF_SCHEMA + 12)
    expected = [await _told(serving, number, rng) for number in numbers]
    running = [asyncio.create_task(_told(serving, number, rng)) for number in numbers]
    await until(lambda: any(entry.used_pages for entry in dispatcher.stats().in_flight))
    stopped, started_s = set(dispatcher.pids), time.monotonic()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    await until(lambda: not stopped & set(dispatcher.pids))
    noticed_s = time.monotonic() - started_s
    print(f"noticed after {noticed_s:.2f} s")
    assert noticed_s < 2 * HEARTBEAT_S + 1.0
    answers = await asyncio.gather(*running)
    for actual, wanted in zip(answers, expected, strict=True):
        _compare(actual, wanted)
    assert any(one.end.usage.retries for one in answers)
    await serving.settled()


async def test_a_worker_whose_context_is_what_memory_allowed_is_replaced(
    tmp_path: Path,
) -> None:
    """The next one finds other memory free, takes the same, and goes on with the answer."""
    model = streaming_decoder(tmp_path / "model", context_tokens=1 << 26)
    async with answering(tmp_path / "data", model, kv_memory=None) as serving:
        dispatcher = sequences_of(serving)
        before = dispatcher.model
        assert before is not None
        assert before.max_tokens < 1 << 26
        messages = analyze_messages(STORY.encode(), prompt("Go on.", max_tokens=400), 40)
        answer = asyncio.create_task(hear(serving.inference.Analyze(messages)))
        await until(lambda: any(entry.used_pages for entry in dispatcher.stats().in_flight))
        os.kill(dispatcher.pids[0], signal.SIGKILL)
        written = await asyncio.wait_for(answer, RESTART_S)
        assert written.end.usage.retries == 1
        assert dispatcher.model == before
