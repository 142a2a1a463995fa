"""Questions about a document, answered by the worker's own decoder under any policies.

Weights, pages, scheduler and sampling are those that serve; only the transport is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.generation_engine import Driver
from benchmarks.recall.documents import ANSWER_VALUES, Document
from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.attention.linear.feature_maps import FeatureMap
from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.select import select_backend
from longspan.worker.generation.kv_memory import summary_bytes
from longspan.worker.generation.kv_pool import make_pool
from longspan.worker.generation.outputs import Outputs
from longspan.worker.generation.policies import Policies
from longspan.worker.generation.runner import Runner
from longspan.worker.generation.scheduler import Scheduler
from longspan.worker.generation.serving import LAYOUT, inner_weights, quicken, step_limits
from longspan.worker.generation.workload import Generation, KvSizes, PageSpace
from longspan.worker.kv.pages import PageTable
from longspan.worker.models.decoder_files import find_decoder
from longspan.worker.models.loading import load_decoder
from longspan.worker.models.probe import probe
from longspan.worker.tiers.holdings import Holdings

CPU = torch.device("cpu")
DTYPE = torch.float32


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of one question.

    Attributes:
        tokens: of the answer.
        seen_share: keys that document, question and answer saw, as a share of full attention's.
        kv_bytes: what the sequence held at its end.
    """

    tokens: tuple[int, ...]
    seen_share: float
    kv_bytes: int


class Engine:
    """The decoder of a folder, in float32 on the CPU.

    Args:
        folder: of the model.
        policies: by their names; one a model.
        kv_tokens: what its pages hold.
        maps: of the layers with linear far states.
    """

    def __init__(
        self,
        folder: Path,
        policies: Sequence[ModelPolicy],
        kv_tokens: int,
        maps: Mapping[int, FeatureMap] | None = None,
    ) -> None:
        files = find_decoder(folder)
        model = load_decoder(files, device="cpu", dtype="float32")
        weights = inner_weights(model)
        running = quicken(model, DTYPE, CPU, compiled=False)
        shapes = probe(model, CPU)
        served = Policies(policies, shapes, DTYPE.itemsize)
        frames = -(-kv_tokens // PAGE_TOKENS) * sum(served.sizes)
        table = PageTable(frames, served.sizes)
        layers = make_pool(
            shapes, served.layout, frames, DTYPE, CPU, bounds=served.selects, maps=maps
        )
        summaries = {one.name: summary_bytes(one, shapes, DTYPE) for one in policies}
        widest = max(shape.d for shape in shapes)
        positions = files.context_tokens
        limits = step_limits(CPU, None, weights, shapes)
        self._driver = Driver(
            Generation(
                Runner(running, layers, select_backend(CPU, DTYPE, widest)),
                Scheduler(limits, table, context_tokens=kv_tokens, positions=positions),
                table,
                Outputs(files),
                PageSpace(files.fingerprint, "float32", LAYOUT),
                served,
                KvSizes(served.frame_bytes, summaries),
                Holdings(table, None),
            )
        )

    def ask(self, document: Document, records: Sequence[int], policy: str) -> list[Answered]:
        """The answers about some records, in their order.

        The first question has the document read; the others find its pages.
        """
        first = self._answers(document, records[:1], policy)
        return first + self._answers(document, records[1:], policy)

    def _answers(self, document: Document, records: Sequence[int], policy: str) -> list[Answered]:
        ids = [
            self._driver.open(
                np.concatenate([document.tokens, document.question(record)]).tolist(),
                ANSWER_VALUES + 1,
                attention=policy,
                task_start=len(document.tokens),
            )
            for record in records
        ]
        tokens: dict[int, list[int]] = {one: [] for one in ids}
        ends: dict[int, pb.Finished] = {}
        for events in self._driver.steps():
            for event in events:
                match event.WhichOneof("kind"):
                    case "generated":
                        new = np.frombuffer(event.generated.tokens, "<u4").tolist()
                        tokens[event.generated.job_id] += new
                    case "finished":
                        ends[event.finished.job_id] = event.finished
                    case "failed":
                        raise RuntimeError(event.failed.message)
        return [Answered(tuple(tokens[i]), ends[i].seen_share, ends[i].kv_bytes) for i in ids]
