"""A real decoder worker is killed in the middle of real answers, structured ones too."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.conversation import analyze_messages, sending
from tests.e2e.generation import Written, hear, prompt, sequences_of
from tests.e2e.workers import quiet_log, serving_with
from tests.pool.harness import until
from tests.support.data import shared_data
from tests.support.serving import Serving

GENERATIONS = 50
STRUCTURED = 10
LANES = 10
KILLS = 3
STORY = (
    b"Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    b"One day, she saw a big, red ball. She wanted to play with it, but it was too high."
)
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


def _task(number: int) -> pb.Task:
    """Greedy and sampled, free and structured tasks, each with a seed of its own."""
    words = f"Tell story {number}."
    if number < STRUCTURED:
        form = {"json_schema": SCHEMA} if number % 2 else {"regex": FORM}
        return prompt(words, max_tokens=40, seed=number, temperature=0.8, **form)
    return prompt(words, max_tokens=40, seed=number, temperature=0.9 * (number % 2))


async def _told(serving: Serving, number: int) -> Written:
    messages = analyze_messages(STORY, _task(number), 50)
    return await hear(serving.inference.Analyze(sending(messages)))


async def _in_lanes(serving: Serving) -> list[Written]:
    lanes = asyncio.Semaphore(LANES)

    async def one(number: int) -> Written:
        async with lanes:
            return await _told(serving, number)

    return await asyncio.gather(*(one(number) for number in range(GENERATIONS)))


async def _kill(serving: Serving, rng: random.Random) -> None:
    dispatcher = sequences_of(serving)
    for _ in range(KILLS):
        await until(lambda: dispatcher.ready and not dispatcher.probation(), 60.0)
        await asyncio.sleep(rng.uniform(0.05, 0.6))
        for pid in dispatcher.pids:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: not dispatcher.ready)


async def test_fifty_generations_are_byte_identical_though_their_worker_is_killed(
    tmp_path: Path,
) -> None:
    """Text, reason and token counts equal the undisturbed run's; some answers were replayed."""
    model = shared_data("models", "stories260K", "hf")
    seed = int(os.environ.get("LONGSPAN_TEST_SEED", time.time_ns() % 2**32))
    print(f"seed {seed}")
    async with serving_with(
        tmp_path, encoder="none", model=str(model), dtype="float32", worker_threads=1
    ) as serving:
        expected = await _in_lanes(serving)
        assert all(re.fullmatch(FORM, one.text) for one in expected[0:STRUCTURED:2])
        # A model this small may fill a schema's white space until its tokens are used up.
        assert all(one.text.lstrip().startswith("{") for one in expected[1:STRUCTURED:2])
        killing = asyncio.create_task(_kill(serving, random.Random(seed)))
        retries = 0
        while not killing.done():
            replayed = await _in_lanes(serving)
            retries += sum(one.end.usage.retries for one in replayed)
            for actual, wanted in zip(replayed, expected, strict=True):
                assert actual.text == wanted.text
                assert actual.end.finish_reason == wanted.end.finish_reason
                assert actual.end.usage.output_tokens == wanted.end.usage.output_tokens
        await killing
        assert retries >= KILLS
