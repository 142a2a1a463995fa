"""Encoder throughput: packed rows against plain padded batches, in one run.

    python -m benchmarks.encoder

The packed columns run the worker's own ``Encoder`` on steps of 32 texts. The padded ones run
transformers' unmodified model with its default attention on batches of the same 32 texts, with
the same pooling. Rounds of all variants take turns, and the best round of each counts, so a
busy machine disturbs them alike.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from longspan.worker.devices import set_threads
from longspan.worker.encoding.encoder import Encoder
from longspan.worker.encoding.loading import load_encoder
from longspan.worker.encoding.packing import TokenIds
from longspan.worker.model_files import ModelFiles, find_model

THREADS = 2
BATCH_TEXTS = 32
PASSAGES = 64
ROUNDS = 3
REPOSITORY = Path(__file__).resolve().parents[1]
LONG_TEXT = REPOSITORY.parent / "shared" / "data" / "longtext" / "paul_graham_essays.jsonl.zst"

Encode = Callable[[Sequence[TokenIds]], object]


@dataclass(frozen=True, slots=True)
class Row:
    """One variant: tokens a second (special tokens included, padding not), best of all rounds."""

    variant: str
    dtype: str
    tokens_per_s: float


def documents() -> Iterator[str]:
    """Real prose: essays where the machine has them, else the examples."""
    if not LONG_TEXT.exists():
        yield from (path.read_text("utf-8") for path in sorted(REPOSITORY.glob("examples/*.md")))
        return
    import zstandard

    with LONG_TEXT.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        yield from (json.loads(line)["text"] for line in stream.read().decode().splitlines())


def passages(files: ModelFiles) -> list[TokenIds]:
    """Passages of 128 ± 40 tokens, cut from the documents in order."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(files.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    lengths = random.Random(0)
    cut: list[TokenIds] = []
    for document in documents():
        ids = np.array(tokenizer.encode(document, add_special_tokens=False).ids, np.uint32)
        while len(ids) > 16 and len(cut) < PASSAGES:
            length = min(max(16, int(lengths.gauss(128, 40))), files.max_tokens - 2)
            cut.append(ids[:length])
            ids = ids[length:]
    return cut


def padded(files: ModelFiles, dtype: torch.dtype) -> Encode:
    """Plain transformers: pad, mask, mean over the mask, normalise."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(files.folder, add_pooling_layer=False, dtype=dtype).eval()

    @torch.inference_mode()
    def encode(texts: Sequence[TokenIds]) -> torch.Tensor:
        rows = [torch.tensor([101, *text.tolist(), 102]) for text in texts]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], True)
        hidden = model(ids, attention_mask=mask).last_hidden_state.float()
        means = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return torch.nn.functional.normalize(means, dim=-1)

    return encode


def packed(files: ModelFiles, dtype: str) -> Encode:
    """The worker's encoder."""
    encoder: Encoder = load_encoder(files, device="cpu", dtype=dtype)
    return encoder.encode


def seconds(encode: Encode, texts: Sequence[TokenIds]) -> float:
    """Time of one pass over all texts in batches."""
    start = time.perf_counter()
    for first in range(0, len(texts), BATCH_TEXTS):
        encode(texts[first : first + BATCH_TEXTS])
    return time.perf_counter() - start


def gemm_tokens_per_s(files: ModelFiles) -> float:
    """The ceiling: the linear layers of one tile as bare matrix products, nothing else."""
    config = json.loads((files.folder / "config.json").read_bytes())
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes = [(width, width)] * 4 + [(width, inner), (inner, width)]
    tokens = 1024
    pairs = [(torch.randn(tokens, i), torch.randn(o, i)) for i, o in shapes]
    times = []
    for _ in range(ROUNDS * 8):
        start = time.perf_counter()
        for left, right in pairs:
            torch.nn.functional.linear(left, right)
        times.append(time.perf_counter() - start)
    return float(tokens / (min(times) * config["num_hidden_layers"]))


def measure() -> list[Row]:
    """Run all variants in turns."""
    set_threads(THREADS)
    files = find_model("embedded")
    texts = passages(files)
    tokens = sum(len(text) + 2 for text in texts)
    makers: dict[tuple[str, str], Callable[[], Encode]] = {
        ("packed", "float32"): partial(packed, files, "float32"),
        ("padded", "float32"): partial(padded, files, torch.float32),
        ("packed", "bfloat16"): partial(packed, files, "bfloat16"),
        ("padded", "bfloat16"): partial(padded, files, torch.bfloat16),
    }
    variants = {key: make() for key, make in makers.items()}
    best = dict.fromkeys(variants, float("inf"))
    for _ in range(ROUNDS):
        for key, encode in variants.items():
            best[key] = min(best[key], seconds(encode, texts))
    rows = [Row(*key, tokens_per_s=tokens / time_s) for key, time_s in best.items()]
    return [*rows, Row("linear layers alone", "float32", gemm_tokens_per_s(files))]


def main() -> list[Row]:
    """Print the table; return its rows."""
    rows = measure()
    baseline = next(row for row in rows if (row.variant, row.dtype) == ("padded", "float32"))
    print(f"{'variant':20s} {'dtype':9s} {'tokens/s':>9s} {'x padded float32':>17s}")
    for row in rows:
        ratio = row.tokens_per_s / baseline.tokens_per_s
        print(f"{row.variant:20s} {row.dtype:9s} {row.tokens_per_s:9.0f} {ratio:17.2f}")
    return rows


if __name__ == "__main__":
    main()
