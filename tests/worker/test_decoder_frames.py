"""Decoder processes whose layers keep different parts of a page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.decoders import tiny_decoder
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
LONG = 15_000
SUMMARISED = 9000
KV_BYTES = 8 << 20
"""Full attention holds fewer tokens in it than either."""
TEXT = "".join(f" Tom saw {n} birds and {n * 3 % 41} fish at the lake." for n in range(1500))
QUESTION = story_tokens(" What did Tom see?")[1:]


@pytest.fixture(scope="module")
def lean(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A quarter of the layers sees everything, in 8 bits; the others a window."""
    folder = stretched_stories(Path(tmp_path_factory.mktemp("stories")), context_tokens=LONG + 1000)
    with decoder(folder, "--attention", "lean", kv_bytes=KV_BYTES) as worker:
        yield worker


async def ask(sequences: Decoding, document: list[int], **options: object) -> Answer:
    """A question behind a document, answered in 16 tokens."""
    return await sequences.answer(
        [*document, *QUESTION], task_start=len(document), max_tokens=16, **options
    )


async def test_lean_reads_what_full_attention_cannot_hold(lean: Worker) -> None:
    """Beside it only policies are served that live with pages in 8 bits."""
    document = story_tokens(TEXT)[:LONG]
    async with decoding(lean) as sequences:
        contexts = {one.name: one.max_tokens for one in sequences.ready.attention}
        assert list(contexts) == ["lean", "full", "window"]
        assert contexts["full"] < LONG < contexts["lean"] == contexts["window"]
        assert sequences.ready.max_tokens == contexts["lean"]
        refused = await ask(sequences, document, attention="full")
        first = await ask(sequences, document)
        again = await ask(sequences, document)
    assert refused.reason == "PROMPT_TOO_LONG"
    assert first.finished.attention == "lean"
    assert first.tokens == again.tokens
    assert first.finished.cached_tokens == 0
    assert again.finished.cached_tokens // PAGE == LONG // PAGE
    assert first.finished.kv_bytes == again.finished.kv_bytes <= KV_BYTES


async def test_lean_keeps_what_the_formula_says(lean: Worker) -> None:
    """Of 5 layers of 4 kv heads of 8, in float32, within 2%."""
    document = story_tokens(TEXT)[:LONG]
    async with decoding(lean) as sequences:
        end = (await ask(sequences, document)).finished
    tokens = -(-(LONG + len(QUESTION) + 16) // PAGE) * PAGE
    # Two layers share one slot of a frame; each number is a byte, each scale two.
    slot = 2 * 4 * 8 * 4 + 4 * 4 * 4
    held = tokens * slot + 3 * (1 + 8 + 1) * PAGE * slot
    assert abs(end.kv_bytes - held) <= 0.02 * held


async def test_under_lean_a_document_may_arrive_in_any_pieces(lean: Worker) -> None:
    """Parts of pages are given up while it arrives."""
    document = story_tokens(TEXT)[:5000]
    async with decoding(lean) as sequences:
        whole = await ask(sequences, document, tenant="whole")
        pieces = await sequences.open([], sealed=False, max_tokens=16, tenant="pieces")
        for start in range(0, len(document), 1777):
            await sequences.append(pieces, document[start : start + 1777])
        await sequences.append(pieces, QUESTION, seal=True, task_start=len(document))
        await sequences.ended(pieces)
    assert pieces.tokens == whole.tokens


@pytest.mark.parametrize(
    ("architecture", "pages"), [("mistral", 6), ("gemma3_text", 8), ("gpt_oss", 10)]
)
async def test_sliding_layers_hold_no_more_than_their_window(
    tmp_path: Path, architecture: str, pages: int
) -> None:
    """3,000 tokens in room for fewer: the answer is that of a worker with room for all."""
    folder = tiny_decoder(architecture, tmp_path, context_tokens=8192, stop_tokens=(383,))
    page = 3 * 2 * 2 * 16 * 4 * PAGE
    prompt = [n * 31 % 370 + 5 for n in range(3000)]
    found: dict[int, Answer] = {}
    for room in (20, pages):
        with decoder(folder, kv_bytes=room * page) as worker:
            async with decoding(worker) as sequences:
                found[room] = await sequences.answer(prompt, max_tokens=8)
    assert found[pages].reason == found[20].reason == "LENGTH"
    assert found[pages].tokens == found[20].tokens
    assert found[pages].finished.kv_bytes == found[20].finished.kv_bytes <= pages * page


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """What stands for a page is all that is kept of it behind the window."""
    folder = stretched_stories(Path(tmp_path_factory.mktemp("stories")), context_tokens=LONG + 1000)
    with decoder(folder, "--attention", "summary", kv_bytes=KV_BYTES) as worker:
        yield worker


async def test_a_summary_is_read_where_full_attention_cannot_be_held(summary: Worker) -> None:
    """However the document arrives; and found again, though its pages are gone."""
    document = story_tokens(TEXT)[:SUMMARISED]
    async with decoding(summary) as sequences:
        contexts = {one.name: one.max_tokens for one in sequences.ready.attention}
        assert list(contexts) == ["summary", "full", "window"]
        assert contexts["full"] < SUMMARISED < contexts["summary"]
        whole = await ask(sequences, document)
        again = await ask(sequences, document)
        window = await ask(sequences, document, attention="window")
        pieces = await sequences.open([], sealed=False, max_tokens=16, tenant="pieces")
        for start in range(0, len(document), 3777):
            await sequences.append(pieces, document[start : start + 3777])
        await sequences.append(pieces, QUESTION, seal=True, task_start=len(document))
        await sequences.ended(pieces)
    assert whole.tokens == again.tokens == pieces.tokens
    assert again.finished.cached_tokens // PAGE == SUMMARISED // PAGE
    assert window.finished.seen_share < whole.finished.seen_share < 0.8
    page = 5 * 2 * 4 * 8 * 4 * PAGE
    held = (8 + 8 + 1) * page + -(-SUMMARISED // PAGE) * page // 64
    assert held <= whole.finished.kv_bytes <= held + 2 * page
