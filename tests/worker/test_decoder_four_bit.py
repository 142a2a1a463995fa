"""A decoder process that selects pages by keys in 4 bits, which it counts, reuses and stores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from longspan.worker.attention.policy import FULL, PRESETS
from longspan.worker.attention.policy_file import PolicyFile, write_policy
from tests.worker.decoding import decoding, story_tokens, stretched_stories
from tests.worker.test_decoder_tiers import LONG, PAGE, QUESTION, TEXT, ask, stop, worker_on

LAYERS, KV_HEADS, DIM = 5, 4, 8
TIGHT = replace(PRESETS["hybrid-4bit"].layer, dense_pages=0, window_pages=1, selected_pages=2)
"""As the preset chooses, from the first page on."""


async def test_copies_are_counted_found_again_and_outlive_the_worker(tmp_path: Path) -> None:
    """A second question finds pages with their copies; so does the next worker, on disk."""
    model = tmp_path / "model"
    model.mkdir()
    stretched_stories(model, context_tokens=LONG + 1000)
    document = story_tokens(TEXT)[:LONG]
    policy, disk = tmp_path / "tight.json", tmp_path / "disk"
    write_policy(policy, PolicyFile("tight", (FULL, *[TIGHT] * (LAYERS - 1))))
    flags = ("--attention", str(policy))
    with worker_on(disk, model, *flags) as worker:
        async with decoding(worker, stores=True) as sequences:
            first = await ask(sequences, document)
            again = await ask(sequences, document)
            served = [one.name for one in sequences.ready.attention]
        stop(worker)
    with worker_on(disk, model, *flags) as worker:
        async with decoding(worker, stores=True) as sequences:
            restored = await ask(sequences, document)
    assert served == ["tight", "full", "window", "hybrid", "hierarchical", "hybrid-exact"]
    assert 0 < first.finished.seen_share < 1
    assert again.finished.cached_tokens // PAGE == LONG // PAGE
    assert restored.finished.cached_tokens >= LONG // 4
    assert first.tokens == again.tokens == restored.tokens
    pages = -(-(LONG + len(QUESTION) + 16) // PAGE)
    numbers = LAYERS * KV_HEADS * 2 * DIM * 4 * PAGE
    copies = (LAYERS - 1) * KV_HEADS * (PAGE * (DIM // 2 + 2) + 4 * DIM)
    held = pages * (numbers + copies)
    assert abs(first.finished.kv_bytes - held) <= 0.02 * held
