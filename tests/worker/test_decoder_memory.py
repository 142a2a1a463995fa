"""A decoder process with little memory: what it holds, gives back, and does when it runs out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.models.geometry import geometry
from tests.worker.decoding import (
    Answer,
    Decoding,
    decoder,
    decoding,
    stories,
    story_tokens,
    stretched_stories,
)
from tests.worker.harness import Worker

PAGE = 256
PAGES = 5
MIB = 1 << 20
FLAT = 4 * MIB
"""What the host memory of a process may grow by while it does the same over and over."""

PROMPT = "Once upon a time, there was a little girl named Lily."


def token_bytes() -> int:
    """KV bytes of one token, from the model's configuration."""
    return geometry(json.loads((stories() / "config.json").read_text())).kv_bytes(4)


@pytest.fixture(scope="module")
def kv_bytes() -> int:
    """Memory for five pages, and a little that is not enough for a sixth."""
    return int(token_bytes() * PAGE * (PAGES + 0.09))


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory, kv_bytes: int) -> Iterator[Worker]:
    """One worker for all tests of this module; its model could read more than its pages hold."""
    folder = stretched_stories(Path(tmp_path_factory.mktemp("stories")), context_tokens=4096)
    with decoder(folder, kv_bytes=kv_bytes) as worker:
        yield worker


async def test_the_tokens_that_fit_follow_from_the_configuration(
    worker: Worker, kv_bytes: int
) -> None:
    """Whole pages of them, and never more than was asked for."""
    async with decoding(worker) as sequences:
        held = sequences.ready.kv_tokens
        assert sequences.ready.kv_host_bytes == 0, "nothing lies on the host"
    assert held == PAGES * PAGE
    assert 0.98 * kv_bytes <= held * token_bytes() <= kv_bytes


async def test_more_sequences_than_fit_all_complete_undisturbed(worker: Worker) -> None:
    """Eight that grow into a second page, and one that needs three, take turns in five pages."""
    prompts = [story_tokens(PROMPT + " She was happy." * 60)[: 190 + 7 * n] for n in range(8)]
    prompts.append(story_tokens(PROMPT + " He was sad and she was happy." * 60)[: 2 * PAGE + 90])
    options = [
        {"max_tokens": 90, "temperature": n % 2 * 0.7, "seed": n, "priority": 1 + n % 3}
        for n in range(len(prompts))
    ]
    async with decoding(worker) as sequences:
        alone = await run(sequences, prompts, options, together=1)
        crowd = await run(sequences, prompts, options, together=len(prompts))
    assert [answer.tokens for answer in crowd] == [answer.tokens for answer in alone]
    assert [answer.text for answer in crowd] == [answer.text for answer in alone]
    assert {answer.reason for answer in crowd} == {"LENGTH"}
    assert max(beat.used_pages for beat in sequences.stream.heartbeats) == PAGES


async def run(
    sequences: Decoding,
    prompts: list[list[int]],
    options: list[dict[str, Any]],
    *,
    together: int,
) -> list[Answer]:
    """Answers to all prompts, so many at a time; each time for a tenant of its own."""
    answers = []
    for prompt, one in zip(prompts, options, strict=True):
        answers.append(await sequences.open(prompt, tenant=f"{together} at a time", **one))
        if len(answers) % together == 0:
            await sequences.ended(*answers)
    return answers


async def test_open_prompts_give_up_their_pages_to_running_ones(worker: Worker) -> None:
    """Whoever waits for its client does not stop the others, and is read again later."""
    prompt = story_tokens(PROMPT + " She was happy." * 60)[: 2 * PAGE + 9]
    async with decoding(worker) as sequences:
        alone = await sequences.answer(prompt, max_tokens=20, tenant="alone")
        slow = [
            await sequences.open(prompt[:-1], sealed=False, max_tokens=20, tenant=f"slow {n}")
            for n in range(3)
        ]
        await sequences.read_to(slow[0], len(prompt) - 2)
        quick = await sequences.answer(prompt, max_tokens=20, tenant="quick")
        for answer in slow:
            await sequences.append(answer, prompt[-1:], seal=True)
        await sequences.ended(*slow)
    assert [answer.tokens for answer in [quick, *slow]] == [alone.tokens] * 4


async def test_a_prompt_that_can_never_fit_is_refused(worker: Worker) -> None:
    """At once, or when it has grown too long; the context ends where the pages do."""
    async with decoding(worker) as sequences:
        assert sequences.ready.max_tokens == PAGES * PAGE
        whole = await sequences.answer([403] * (PAGES * PAGE))
        growing = await sequences.open([403] * 1000, sealed=False)
        await sequences.append(growing, [403] * 280)
        await sequences.ended(growing)
        last = await sequences.answer([403] * (PAGES * PAGE - 3))
    assert whole.reason == growing.reason == "PROMPT_TOO_LONG"
    assert (len(last.tokens), last.reason) == (3, "LENGTH")


async def test_memory_is_flat_over_a_thousand_requests(worker: Worker) -> None:
    """Of all kinds: free, sampled, with stops, with grammars, cancelled, refused."""
    process = psutil.Process(worker.process.pid)
    async with decoding(worker) as sequences:
        await many(sequences, 200)
        before = process.memory_info().rss
        await many(sequences, 800)
        after = process.memory_info().rss
    print("GROWTH", (after - before) / 2**20, before / 2**20)
    assert after - before < FLAT


KINDS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.8, "seed": 3},
    {"stop_texts": ["She", "park"]},
    {"grammar": pb.Grammar(regex="[a-z]{3}")},
    {"grammar": pb.Grammar(json_schema='{"type": "boolean"}')},
    {"grammar": pb.Grammar(regex="(")},
    {"sealed": False},
    {"deadline_ms": 1},
)


async def many(sequences: Decoding, count: int) -> None:
    """Run so many short requests, sixteen at a time."""
    prompts = [story_tokens(PROMPT + " yes" * n) for n in range(7)]
    for start in range(0, count, 16):
        numbers = range(start, min(start + 16, count))
        answers = [
            await sequences.open(prompts[n % 7], max_tokens=4, **KINDS[n % len(KINDS)])
            for n in numbers
        ]
        for n, answer in zip(numbers, answers, strict=True):
            if not KINDS[n % len(KINDS)].get("sealed", True):
                await sequences.cancel(answer)
        await sequences.ended(*answers)
