"""Far states of the recall model: what each makes of a layer's output, and of the answers.

    python -m benchmarks recall-far

The policy is ``stricter``: from a page a layer sees the first one, the one before and four of its
choice. The maps are those of ``maps.safetensors``, which ``benchmarks.recall.distil`` wrote.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from benchmarks.recall.distil import SEED, TOKENS, sequences
from benchmarks.recall.engine import Engine
from benchmarks.recall.measure import MODEL, documents, served
from benchmarks.recall.policies import FAR, LINEAR
from longspan.worker.attention.linear.feature_maps import FeatureMap, elu
from longspan.worker.attention.linear.hedgehog import Hedgehog
from longspan.worker.attention.linear.maps_file import parse_maps
from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.distil.distilling import linear_layers
from longspan.worker.distil.lesson import lesson
from longspan.worker.distil.looks import looks
from longspan.worker.fidelity.session import ModelOptions, open_session
from longspan.worker.models.decoder_files import find_decoder

MAPS = Path(__file__).parent / "maps.safetensors"
RECALLED = ((2048, 12, 2), (8192, 12, 2), (8192, 48, 1))
"""Tokens of a document, its records, and how many documents."""

Maps = Mapping[int, FeatureMap]
Row = dict[str, object]


def linear_maps() -> dict[str, Maps]:
    """The distilled ones, and what they are compared with, by layer."""
    distilled = parse_maps(MAPS.read_bytes()).layers
    sizes = {
        index: (*one.query_weight.shape[:2], len(one.key_weight))
        for index, one in distilled.items()
    }
    untrained = {index: Hedgehog(heads, kv, d) for index, (heads, d, kv) in sizes.items()}
    return {
        "linear, elu": dict.fromkeys(distilled, elu()),
        "linear, Hedgehog untrained": untrained,
        "linear, Hedgehog distilled": distilled,
    }


@torch.inference_mode()
def error_rows() -> Iterator[Row]:
    """Errors of the layers' outputs on a document that no map has learnt from."""
    session = open_session(ModelOptions(model=MODEL, dtype="float32"), find_decoder(MODEL), TOKENS)
    [unseen] = sequences(1, SEED + 1)
    for index, look in looks(session, unseen, linear_layers(session, LINEAR)).items():
        one = lesson(look, LINEAR.layer(index))
        outs = {"none": one.near.out, "centroids": one.with_centroids().out}
        outs |= {name: one.attended(maps[index]).out for name, maps in linear_maps().items()}
        for name, out in outs.items():
            error = round(float(one.error(out).sqrt()), 3)
            yield {"layer": index, "far state": name, "error": error}


def recall_rows() -> Iterator[Row]:
    """Recall through the worker's own engine."""
    kinds: dict[str, tuple[ModelPolicy, Maps]] = {
        "none": (FAR["none"], {}),
        "centroids": (FAR["centroids"], {}),
    }
    kinds |= {name: (LINEAR, maps) for name, maps in linear_maps().items()}
    for tokens, records, count in RECALLED:
        said = documents(tokens, records, count)
        for name, (policy, maps) in kinds.items():
            started = time.process_time()
            engine = Engine(MODEL, [policy], tokens + 128 * PAGE_TOKENS, maps)
            recall, _, _ = served(engine, said, policy.name)
            yield {
                "tokens": tokens,
                "records": records,
                "far state": name,
                "recall": str(recall.everywhere),
                "CPU s": round(time.process_time() - started, 1),
            }


def rows() -> Iterator[Row]:
    """All of them."""
    yield from error_rows()
    yield from recall_rows()


def main() -> list[Row]:
    """Run the measurements."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return list(rows())
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    for row in rows():
        print(row, flush=True)
