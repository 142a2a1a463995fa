"""Recall under every policy: questions about records in documents of 2k to 64k tokens.

    python -m benchmarks recall

The answers are the worker's own (``engine.py``), greedy, and right where every token is. *between*
counts only records that lie between the first page and the last five: what a window has dropped.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.recall.documents import RECORD_TOKENS, Document, document
from benchmarks.recall.engine import Engine
from benchmarks.recall.linear_run import LinearModel
from benchmarks.recall.linear_state import MAPS
from benchmarks.recall.policies import compared
from longspan.worker.attention.policy import PRESETS
from longspan.worker.attention.pool import PAGE_TOKENS

MODEL = Path(__file__).parent / "model"
LENGTHS = (2048, 4096, 8192, 16_384, 32_768, 65_536)
LINEAR_LENGTHS = (2048, 4096)
FEW, MANY = 12, 48
"""Records of a document. Many compete for the pages that a layer selects."""

MANY_LENGTHS = (8192, 32_768)
WINDOW = PRESETS["window"].layer
Row = dict[str, object]


@dataclass(slots=True)
class Score:
    """Questions that were answered rightly, of so many."""

    right: int = 0
    asked: int = 0

    def add(self, right: bool) -> None:
        """Count one."""
        self.right += right
        self.asked += 1

    @property
    def share(self) -> float:
        """NaN where none was asked."""
        return self.right / self.asked if self.asked else float("nan")

    def __str__(self) -> str:
        return f"{self.share:.1%}" if self.asked else ""


@dataclass(slots=True, eq=False)
class Recall:
    """How a policy does on documents of one length."""

    everywhere: Score
    between: Score

    @classmethod
    def none(cls) -> Recall:
        """Before any question."""
        return cls(Score(), Score())

    def add(self, said: Document, record: int, right: bool) -> None:
        """Count one answer."""
        self.everywhere.add(right)
        if is_between(said, record):
            self.between.add(right)


def is_between(said: Document, record: int) -> bool:
    """True where a window of the preset has dropped all of a record when the task is read."""
    first, last = said.places[record], said.places[record] + RECORD_TOKENS - 1
    page = len(said.tokens) // PAGE_TOKENS
    between = range(WINDOW.prefix_pages, WINDOW.first_window_page(page))
    return first // PAGE_TOKENS in between and last // PAGE_TOKENS in between


def documents(tokens: int, records: int, count: int | None = None) -> list[Document]:
    """Always the same ones; other seeds than training's. ``count`` of None asks about 48 records
    where the documents are short."""
    if count is None:
        count = max(1, min(32_768 // tokens, 4) * FEW // records)
    random = np.random.default_rng([2, tokens])
    return [document(tokens, records, random) for _ in range(count)]


def served(engine: Engine, said: Sequence[Document], policy: str) -> tuple[Recall, float, int]:
    """Recall of the engine under a policy, the share of keys seen, and the KV bytes held."""
    recall = Recall.none()
    seen, kv_bytes = [], 0
    for one in said:
        records = range(len(one.keys))
        for record, answered in zip(records, engine.ask(one, records, policy), strict=True):
            recall.add(one, record, answered.tokens == tuple(one.answer(record)))
            seen.append(answered.seen_share)
            kv_bytes = max(kv_bytes, answered.kv_bytes)
    return recall, float(np.mean(seen)), kv_bytes


def policy_rows(records: int, lengths: Sequence[int]) -> Iterator[Row]:
    """One row a length and policy."""
    policies = compared()
    for tokens in lengths:
        said = documents(tokens, records)
        for policy in policies:
            engine = Engine(MODEL, [policy], kv_tokens=tokens + 128 * PAGE_TOKENS)
            started = time.process_time()
            recall, seen, kv_bytes = served(engine, said, policy.name)
            yield {
                "tokens": tokens,
                "records": records,
                "policy": policy.name,
                "recall": str(recall.everywhere),
                "between": str(recall.between),
                "keys seen": f"{seen:.1%}",
                "KV MiB": round(kv_bytes / 2**20, 1),
                "CPU s": round(time.process_time() - started, 1),
            }


def linear_rows(lengths: Sequence[int] = LINEAR_LENGTHS) -> Iterator[Row]:
    """The first page and the window exactly, and a linear state of the rest."""
    model = LinearModel(MODEL)
    for tokens in lengths:
        for name, far in {"none": None, **MAPS}.items():
            recall = Recall.none()
            for one in documents(tokens, FEW):
                records = range(len(one.keys))
                for record, right in zip(
                    records, model.right(one, records, WINDOW, far), strict=True
                ):
                    recall.add(one, record, right)
            yield {
                "tokens": tokens,
                "records": FEW,
                "policy": f"window and linear state: {name}",
                "recall": str(recall.everywhere),
                "between": str(recall.between),
            }


def main() -> list[Row]:
    """Run the measurements."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [*policy_rows(FEW, LENGTHS), *policy_rows(MANY, MANY_LENGTHS), *linear_rows()]
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    for row in main():
        print(row, flush=True)
