"""Distils feature maps for the recall model, and writes their file.

python -m benchmarks.recall.distil FILE
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.recall.documents import document
from benchmarks.recall.measure import MODEL
from benchmarks.recall.policies import LINEAR
from longspan.worker.attention.linear.maps_file import MapsFile, format_maps
from longspan.worker.distil.distilling import Distilling, LayerError
from longspan.worker.distil.schedule import Schedule
from longspan.worker.fidelity.reading import Tokens
from longspan.worker.fidelity.session import ModelOptions, open_session
from longspan.worker.models.decoder_files import find_decoder

TOKENS = 8192
RECORDS = 48
ASKED = 1024
"""Tokens of questions and answers behind a document."""

SEED = 5
SCHEDULE = Schedule()


def sequences(count: int, seed: int) -> Iterator[Tokens]:
    """Documents with questions and answers behind them; other ones than those that are asked."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        said = document(TOKENS - ASKED, RECORDS, random)
        parts, missing = [said.tokens], ASKED
        while missing > 0:
            record = int(random.integers(RECORDS))
            parts += [said.question(record), said.answer(record)]
            missing -= len(parts[-1]) + len(parts[-2])
        yield np.concatenate(parts)[:TOKENS].astype(np.uint32)


def distilled(schedule: Schedule = SCHEDULE) -> tuple[MapsFile, dict[int, LayerError]]:
    """The maps, and what they are worth on a document that was not learnt from."""
    files = find_decoder(MODEL)
    session = open_session(ModelOptions(model=MODEL, dtype="float32"), files, TOKENS)
    learning = Distilling(session, LINEAR, schedule)
    for number, error in enumerate(learning.learn(sequences(schedule.sequences, SEED))):
        print(f"sequence {number}: squared error {error:.4f}", flush=True)
    [unseen] = sequences(1, SEED + 1)
    told = {"tokens": TOKENS * schedule.sequences, "task": "recall"}
    return MapsFile(files.fingerprint, learning.maps, told), learning.errors(unseen)


def main(path: Path) -> None:
    """Distil, write, and print the errors of each layer."""
    torch.set_num_threads(1)
    started = time.process_time()
    file, errors = distilled()
    path.write_bytes(format_maps(file))
    for layer, error in errors.items():
        print(f"layer {layer}: {error}")
    print(f"{time.process_time() - started:.0f} s of processors")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recall.distil", description=__doc__)
    parser.add_argument("file", type=Path)
    main(parser.parse_args().file)
