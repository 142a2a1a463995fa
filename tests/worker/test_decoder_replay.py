"""A sequence goes on in another decoder process exactly where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest

from longspan.internal.v1 import worker_service_pb2 as pb
from tests.worker.decoding import Answer, Decoding, decoding, starting, stories, story_tokens
from tests.worker.harness import Worker

PROMPT = "Once upon a time, there was a little girl named Lily."
SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "old": {"type": "boolean"}},
        "required": ["name", "old"],
        "additionalProperties": False,
    }
)
GRAMMAR = pb.Grammar(json_schema=SCHEMA)
REGEX = pb.Grammar(regex=r"(Lily|Tom) (saw|ate) [0-9]{2} [a-z]{1,12}\.", begins_after="One day,")
REQUESTS: dict[str, dict[str, Any]] = {
    "greedy": {"max_tokens": 60},
    "sampled": {"max_tokens": 60, "temperature": 0.8, "seed": 5},
    "cold": {"max_tokens": 60, "temperature": 0.8, "seed": 6, "top_p": 0.9, "top_k": 50},
    "stop text": {"max_tokens": 80, "stop_texts": ["big, red", "n the park?"]},
    "late stop": {"max_tokens": 80, "stop_texts": ["She", "."], "answer_begins": "One day,"},
    "stop token": {"max_tokens": 80, "stop_tokens": [432]},
    "json": {"max_tokens": 200, "grammar": GRAMMAR},
    "sampled json": {"max_tokens": 200, "grammar": GRAMMAR, "temperature": 1, "seed": 7},
    "regex": {"max_tokens": 120, "grammar": REGEX},
}


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Worker, Worker]]:
    """Two workers for all tests of this module; they start side by side."""
    with starting(stories()) as worker, starting(stories()) as victim:
        worker.wait_ready()
        victim.wait_ready()
        yield worker, victim


@pytest.fixture(scope="module")
def worker(pair: tuple[Worker, Worker]) -> Worker:
    """The one that goes on."""
    return pair[0]


@pytest.fixture(scope="module")
def victim(pair: tuple[Worker, Worker]) -> Worker:
    """The one that is killed."""
    return pair[1]


def splits(count: int) -> list[int]:
    """After how many tokens an answer may break off: both ends, and between."""
    return sorted({0, 1, 2, count // 3, count * 3 // 4, count - 1, count})


@pytest.mark.parametrize("name", REQUESTS)
async def test_delivered_tokens_are_followed_by_the_rest(worker: Worker, name: str) -> None:
    """The rest of tokens and text, and the same end, wherever the answer broke off."""
    prompt = story_tokens(PROMPT)
    async with decoding(worker) as sequences:
        whole = await sequences.answer(prompt, **REQUESTS[name])
        assert whole.reason == ("LENGTH" if REQUESTS[name]["max_tokens"] == 60 else "STOP")
        points = splits(len(whole.tokens))
        rests = [
            await sequences.open(prompt, delivered=whole.tokens[:point], **REQUESTS[name])
            for point in points
        ]
        await sequences.ended(*rests)
    for point, rest in zip(points, rests, strict=True):
        assert rest.tokens == whole.tokens[point:], point
        assert rest.text == "".join(whole.texts[point:]), point
        assert rest.reason == whole.reason
        assert rest.finished.output_tokens == len(whole.tokens)
        assert rest.finished.prompt_tokens == len(prompt)


async def test_a_prompt_may_arrive_in_pieces_again(worker: Worker) -> None:
    """Delivered tokens wait until the prompt before them is complete."""
    prompt = story_tokens(PROMPT)
    async with decoding(worker) as sequences:
        whole = await sequences.answer(prompt)
        rest = await sequences.open(prompt[:7], sealed=False, delivered=whole.tokens[:9])
        await sequences.heartbeat()
        await sequences.append(rest, prompt[7:], seal=True)
        await sequences.ended(rest)
    assert rest.tokens == whole.tokens[9:]


@pytest.mark.parametrize("name", ["json", "regex"])
async def test_delivered_tokens_must_fit_the_grammar(worker: Worker, name: str) -> None:
    """An answer that the grammar does not allow is not gone on with."""
    prompt = story_tokens(PROMPT)
    async with decoding(worker) as sequences:
        delivered = story_tokens("One day, xylophone")
        answer = await sequences.answer(prompt, delivered=delivered, **REQUESTS[name])
        assert answer.reason == "BAD_GRAMMAR"


def ten_requests() -> list[dict[str, Any]]:
    """Generations of several kinds, three of them with a JSON schema."""
    json_requests = [REQUESTS["json"] | {"temperature": 1, "seed": seed} for seed in (1, 2, 3)]
    free = [{"max_tokens": 60 + 9 * n, "temperature": n % 3 * 0.5, "seed": n} for n in range(7)]
    return [*json_requests, *free]


async def open_all(
    sequences: Decoding, prompts: Sequence[list[int]], delivered: Sequence[list[int]], tenant: str
) -> list[Answer]:
    """Open the ten sequences."""
    return [
        await sequences.open(prompt, delivered=tokens, tenant=tenant, **request)
        for prompt, tokens, request in zip(prompts, delivered, ten_requests(), strict=True)
    ]


async def test_ten_generations_survive_a_killed_process(worker: Worker, victim: Worker) -> None:
    """Text is as if nothing had happened, and every token has been there once."""
    prompts = [story_tokens(PROMPT + " She was very happy." * n) for n in range(10)]
    none: list[list[int]] = [[]] * 10
    async with decoding(victim) as sequences:
        undisturbed = await open_all(sequences, prompts, none, "undisturbed")
        await sequences.ended(*undisturbed)
    broken = await break_off(victim, prompts)
    assert any(one.end is None for one in broken)
    assert any(one.tokens for one in broken)
    async with decoding(worker) as sequences:
        rests = await open_all(sequences, prompts, [one.tokens for one in broken], "rests")
        await sequences.ended(*rests)
    for before, after, whole in zip(broken, rests, undisturbed, strict=True):
        assert before.tokens + after.tokens == whole.tokens
        assert before.text + after.text == whole.text
        assert after.reason == whole.reason
    assert all(set(json.loads(whole.text)) == {"name", "old"} for whole in undisturbed[:3])


async def break_off(victim: Worker, prompts: Sequence[list[int]]) -> list[Answer]:
    """Open ten sequences and kill the process in the middle; returns what was heard."""
    answers: list[Answer] = []
    with pytest.raises(grpc.aio.AioRpcError) as death:
        await hear_to_the_death(victim, prompts, answers)
    assert death.value.code() is grpc.StatusCode.UNAVAILABLE
    return answers


async def hear_to_the_death(
    victim: Worker, prompts: Sequence[list[int]], answers: list[Answer]
) -> None:
    async with decoding(victim) as sequences:
        answers += await open_all(sequences, prompts, [[]] * 10, "broken")
        await sequences.generated(answers[5], 20)
        victim.process.kill()
        await sequences.ended(*answers)
