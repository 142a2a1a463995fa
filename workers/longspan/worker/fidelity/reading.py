"""One sequence, read step by step under one policy."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.layer_plan import View
from longspan.worker.attention.policy import ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS
from longspan.worker.attention.zones import Zones
from longspan.worker.fidelity.observed import Observer
from longspan.worker.fidelity.session import Session
from longspan.worker.generation.plan import Chunk, SequenceId, StepPlan

Tokens = npt.NDArray[np.uint32]


class Reading:
    """A sequence in the session's pages. No page is given up, so that full attention can be
    computed beside what the policy sees.

    Args:
        zones: where the document ends, and the prompt.

    Attributes:
        seconds: spent in steps so far, without what observers took.
    """

    def __init__(self, session: Session, policy: ModelPolicy, zones: Zones) -> None:
        self.session = session
        self.view = View(policy, zones)
        self.seconds = 0.0

    def chunk(self, start: int, tokens: Tokens) -> Chunk:
        """The step's part that puts tokens at ``start``."""
        pages = -(-(start + len(tokens)) // PAGE_TOKENS)
        table = np.arange(pages, dtype=np.int32)
        return Chunk(SequenceId(0), start, tokens, (table,), samples=True, view=self.view)

    def step(
        self, start: int, tokens: Tokens, *, kept: int = 0, observer: Observer | None = None
    ) -> torch.Tensor:
        """Put tokens at ``start``; the logits behind the last ``kept``: float32 [kept, vocabulary].

        What stood there is overwritten. ``observer`` is shown the attention of every layer.
        """
        model = self.session.observed
        model.kept, model.observer = kept, observer
        watched, started = model.observed_s, time.perf_counter()
        logits = self.session.runner.run(StepPlan((self.chunk(start, tokens),))).float().cpu()
        if self.session.device.type == "cuda":  # no logits may have been waited for
            torch.cuda.synchronize(self.session.device)
        self.seconds += time.perf_counter() - started - (model.observed_s - watched)
        model.kept = model.observer = None
        return logits


def chunks(start: int, end: int, step: int) -> Iterator[tuple[int, int]]:
    """[start, end) in parts that end at multiples of ``step``, and at ``end``."""
    while start < end:
        stop = min((start // step + 1) * step, end)
        yield start, stop
        start = stop
