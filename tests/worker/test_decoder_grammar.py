"""How a decoder process chooses tokens and ends answers: seeds, stops, grammars."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from longspan.internal.v1 import worker_service_pb2 as pb
from tests.worker.decoding import decoder, decoding, stories, story_tokens
from tests.worker.harness import Worker

PROMPT = "Tom had a big red ball. He"
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
        "colour": {"enum": ["red", "blue"]},
    },
    "required": ["name", "age", "colour"],
    "additionalProperties": False,
}
SCHEMA_TEXT = json.dumps(SCHEMA)
REGEX = r"(Lily|Tom) (saw|ate) [0-9]{2} (cats|dogs)\."


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    """One worker for all tests of this module."""
    with decoder(stories()) as worker:
        yield worker


def fits_schema(value: Any) -> bool:
    """True for an instance of ``SCHEMA``."""
    return (
        set(value) == {"name", "age", "colour"}
        and isinstance(value["name"], str)
        and len(value["name"]) <= 12
        and type(value["age"]) is int
        and 0 <= value["age"] <= 99
        and value["colour"] in ("red", "blue")
    )


async def test_a_seed_gives_the_same_text_alone_and_in_a_batch(worker: Worker) -> None:
    """Randomness belongs to the request; other seeds give other texts."""
    prompt = story_tokens(PROMPT)
    options: list[dict[str, Any]] = [
        {"seed": seed, "temperature": 0.8, "top_p": top_p, "top_k": top_k}
        for seed, top_p, top_k in [(1, 1.0, 0), (2, 1.0, 0), (3, 0.9, 0), (2**64 - 1, 0.9, 40)]
    ]
    async with decoding(worker) as sequences:
        alone = [await sequences.answer(prompt, max_tokens=60, **one) for one in options]
        greedy = await sequences.answer(prompt, max_tokens=60)
        batch = [await sequences.open(prompt, max_tokens=60, **one) for one in options * 3]
        await sequences.ended(*batch)
    assert [one.tokens for one in batch] == [one.tokens for one in alone] * 3
    assert len({one.text for one in [*alone, greedy]}) == 5


async def test_filters_that_keep_one_token_are_greedy(worker: Worker) -> None:
    """top_k 1, a tiny top_p and min_p 1 leave the most probable token, however hot."""
    prompt = story_tokens(PROMPT)
    async with decoding(worker) as sequences:
        greedy = await sequences.answer(prompt)
        for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}):
            answer = await sequences.answer(prompt, temperature=2.0, seed=9, **narrow)
            assert answer.tokens == greedy.tokens, narrow


async def test_no_tokens_asked_for_reads_the_prompt_only(worker: Worker) -> None:
    """The next sequence finds what was read."""
    prompt = story_tokens(PROMPT + " was happy." * 200)[:400]
    async with decoding(worker) as sequences:
        reading = await sequences.answer(prompt, max_tokens=0)
        assert (reading.tokens, reading.text, reading.reason) == ([], "", "STOP")
        assert reading.prefilled[-1] == (400, 0)
        asking = await sequences.answer(prompt, max_tokens=4)
        assert (asking.finished.cached_tokens, len(asking.tokens)) == (256, 4)
        again = await sequences.answer(prompt[:256], max_tokens=0)
        assert (again.finished.cached_tokens, again.reason) == (256, "STOP")


async def test_a_stop_token_ends_the_answer_without_its_text(worker: Worker) -> None:
    """It counts as output, and what comes before it is what there is to read."""
    prompt = story_tokens(PROMPT)
    async with decoding(worker) as sequences:
        free = await sequences.answer(prompt)
        stop = free.tokens[20]
        end = free.tokens.index(stop) + 1
        stopped = await sequences.answer(prompt, stop_tokens=[stop])
    assert stopped.reason == "STOP"
    assert stopped.tokens == free.tokens[:end]
    assert stopped.text == "".join(free.texts[: end - 1])


async def test_a_stop_text_over_several_tokens_is_not_shown(worker: Worker) -> None:
    """The answer ends before it, none of it leaves the worker, and near misses are shown."""
    prompt = story_tokens(PROMPT)
    async with decoding(worker) as sequences:
        free = await sequences.answer(prompt, max_tokens=80)
        stop = free.text[50:62]
        assert sum(stop in text for text in free.texts) == 0
        stops = [stop, "his balloon", free.text[20:24] + "\0"]
        stopped = await sequences.answer(prompt, max_tokens=80, stop_texts=stops)
    assert stopped.text == free.text[: free.text.index(stop)]
    assert stopped.reason == "STOP"
    assert stopped.tokens == free.tokens[: len(stopped.tokens)]
    assert len("".join(free.texts[: len(stopped.tokens)])) >= len(stopped.text) + len(stop)


@pytest.mark.parametrize(
    "most",
    [
        "tokens",
        "context",
    ],
)
async def test_text_held_back_is_shown_at_the_end(worker: Worker, most: str) -> None:
    """The last words may begin a stop text; they belong to the answer that is cut off there."""
    prompt = story_tokens(PROMPT + " was happy." * 200)[: 472 if most == "context" else 100]
    limit = 40 if most == "tokens" else 99
    async with decoding(worker) as sequences:
        free = await sequences.answer(prompt, max_tokens=limit)
        assert (len(free.tokens), free.reason) == (40, "LENGTH")
        stop = free.text[-6:] + "\0"
        held = await sequences.answer(prompt, max_tokens=limit, stop_texts=[stop])
    assert held.tokens == free.tokens
    assert held.text == free.text
    assert held.texts != free.texts


async def test_json_fits_its_schema(worker: Worker) -> None:
    """Whatever the model would rather say."""
    async with decoding(worker) as sequences:
        answers = [
            await sequences.open(
                story_tokens(PROMPT),
                max_tokens=480,
                temperature=temperature,
                seed=seed,
                grammar=pb.Grammar(json_schema=SCHEMA_TEXT),
            )
            for seed, temperature in enumerate([0.0, 0.7, 1.0, 1.0, 1.5, 1.5])
        ]
        await sequences.ended(*answers)
    for answer in answers:
        assert answer.reason == "STOP", answer.text
        assert fits_schema(json.loads(answer.text)), answer.text
    assert len({answer.text for answer in answers}) > 3


async def test_text_matches_its_regular_expression(worker: Worker) -> None:
    """From its first to its last character, in a batch with free text."""
    prompt = story_tokens(PROMPT)
    async with decoding(worker) as sequences:
        free = await sequences.open(prompt, max_tokens=60)
        answers = [
            await sequences.open(
                prompt, max_tokens=60, temperature=1, seed=seed, grammar=pb.Grammar(regex=REGEX)
            )
            for seed in range(6)
        ]
        await sequences.ended(free, *answers)
        alone = await sequences.answer(prompt, max_tokens=60)
    assert all(re.fullmatch(REGEX, answer.text) for answer in answers)
    assert {answer.reason for answer in answers} == {"STOP"}
    assert len({answer.text for answer in answers}) > 1
    assert free.tokens == alone.tokens


async def test_stops_count_from_behind_a_text(worker: Worker) -> None:
    """Until then the model may say them, as it may while it reasons."""
    prompt = story_tokens(PROMPT)
    async with decoding(worker) as sequences:
        free = await sequences.answer(prompt, max_tokens=100)
        options = {"stop_texts": ["."], "answer_begins": "."}
        answer = await sequences.answer(prompt, max_tokens=100, **options)
    first, second, *_ = free.text.split(".")
    assert (answer.text, answer.reason) == (f"{first}.{second}", "STOP")


async def test_a_grammar_begins_after_a_text(worker: Worker) -> None:
    """Until then the text is free, as reasoning is."""
    grammar = pb.Grammar(regex=REGEX, begins_after=".")
    async with decoding(worker) as sequences:
        free = await sequences.answer(story_tokens(PROMPT), max_tokens=100)
        answer = await sequences.answer(story_tokens(PROMPT), max_tokens=100, grammar=grammar)
    before, _, after = answer.text.partition(".")
    assert before == free.text.partition(".")[0]
    assert re.fullmatch(REGEX, after.lstrip()), after
    assert answer.reason == "STOP"
