"""Attention policies of a real decoder process: what is seen, kept, shared and replayed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.worker.decoding import (
    Answer,
    Decoding,
    decoder,
    decoding,
    story_tokens,
    stretched_stories,
)
from tests.worker.harness import Worker

PAGE = 256
POSITIONS = 40_000
KV_BYTES = 24 << 20
"""Less than the model's positions take under full attention."""
DENSE = 64 * PAGE
TEXT = "".join(f" Lily saw {n} dogs and {n * 7 % 50} cats in the park." for n in range(2000))
QUESTION = story_tokens(" What did Lily see?")[1:]


@pytest.fixture(scope="module")
def document() -> list[int]:
    """More tokens than any test takes."""
    tokens = story_tokens(TEXT)
    assert len(tokens) > 30_000
    return tokens


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker for all tests of this module."""
    folder = Path(tmp_path_factory.mktemp("stories"))
    with decoder(stretched_stories(folder, context_tokens=POSITIONS), kv_bytes=KV_BYTES) as worker:
        yield worker


async def ask(sequences: Decoding, document: list[int], **options: Any) -> Answer:
    """A question behind a document, answered in 24 tokens."""
    return await sequences.answer(
        [*document, *QUESTION], task_start=len(document), max_tokens=24, **options
    )


async def ask_in_pieces(
    sequences: Decoding, document: list[int], cuts: list[int], **options: Any
) -> Answer:
    """The same, the document arriving bit by bit."""
    answer = await sequences.open([], sealed=False, max_tokens=24, **options)
    for start, end in pairwise([0, *cuts, len(document)]):
        await sequences.append(answer, document[start:end])
        position = (end - 1) // PAGE * PAGE - PAGE
        if position > 0:
            await sequences.read_to(answer, position)
    await sequences.append(answer, QUESTION, seal=True, task_start=len(document))
    await sequences.ended(answer)
    return answer


async def test_short_documents_are_seen_whole_under_every_policy(
    worker: Worker, document: list[int]
) -> None:
    """Nothing lies between the first pages and the last ones yet."""
    async with decoding(worker) as sequences:
        # ``lean`` decides how pages are stored: a worker serves it from its start or never.
        names = ["full", "window", "hybrid", "hierarchical", "hybrid-exact"]
        assert [one.name for one in sequences.ready.attention] == names
        answers = [await ask(sequences, document[:1200], attention=name) for name in ("", *names)]
    assert len({answer.text for answer in answers}) == 1
    ends = [answer.finished for answer in answers]
    assert [end.attention for end in ends] == ["full", *names]
    assert [end.seen_share for end in ends] == [1.0] * 6
    assert {end.cached_tokens for end in ends[2:]} == {0}, "policies share no pages"


@pytest.mark.parametrize("name", ["window", "hybrid"])
async def test_a_document_may_arrive_in_any_pieces(
    worker: Worker, document: list[int], name: str
) -> None:
    """Its answer is that of one piece, and its pages serve the next question.

    An answer that goes on where another worker was reads delivered tokens as they were written,
    each alone.
    """
    text = document[: DENSE + 10 * PAGE + 77]
    async with decoding(worker) as sequences:
        whole = await ask(sequences, text, attention=name, tenant="whole")
        cuts = [1, 300, 5000, DENSE - 3, DENSE + 600, DENSE + 1800]
        pieces = await ask_in_pieces(sequences, text, cuts, attention=name, tenant="pieces")
        again = await ask(sequences, text, attention=name, tenant="pieces")
        delivered = whole.tokens[:9]
        rest = await ask(sequences, text, attention=name, delivered=delivered, tenant="whole")
        full = await ask(sequences, text, tenant="full")
    assert whole.tokens[9:] == rest.tokens
    assert pieces.tokens == whole.tokens == again.tokens
    assert again.finished.cached_tokens // PAGE == len(text) // PAGE
    assert 0 < whole.finished.seen_share == pieces.finished.seen_share < 1
    assert full.finished.seen_share == 1.0
    assert full.tokens != whole.tokens, "this document shows the difference"


async def test_a_window_reads_what_full_attention_cannot_hold(
    worker: Worker, document: list[int]
) -> None:
    """Its memory does not grow with the document; full attention is refused by its count."""
    text = document[:30_000]
    async with decoding(worker) as sequences:
        contexts = {one.name: one.max_tokens for one in sequences.ready.attention}
        refused = await ask(sequences, text, attention="full")
        short = await ask(sequences, document[:8000], attention="window")
        long = await ask(sequences, text, attention="window")
    assert contexts["full"] == contexts["hybrid"] < len(text) < contexts["window"] == POSITIONS
    assert refused.reason == "PROMPT_TOO_LONG"
    assert long.reason == "LENGTH"
    assert 0 < long.finished.kv_bytes <= short.finished.kv_bytes + KV_BYTES // 100


async def test_an_unknown_policy_is_refused_by_its_name(worker: Worker) -> None:
    """The worker lives on."""
    async with decoding(worker) as sequences:
        refused = await sequences.answer([5, 6], attention="sparse")
        assert refused.reason == "BAD_REQUEST"
        assert await sequences.answer([5, 6], max_tokens=2)
