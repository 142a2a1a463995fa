"""Steps written by hand: sequences over pages of one's choice, run chunk by chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from longspan.worker.attention.base import Attended, Backend
from longspan.worker.attention.cpu import CpuBackend, CpuPlan
from longspan.worker.attention.policy import FULL_MODEL, ModelPolicy
from longspan.worker.attention.pool import PAGE_TOKENS, LayerPages
from longspan.worker.generation.decode_graph import DecodeGraphs, DecodeInputs, repeat_eagerly
from longspan.worker.generation.plan import Chunk, SequenceId, StepPlan
from longspan.worker.generation.runner import Runner
from longspan.worker.models.probe import probe

CPU = torch.device("cpu")
CHUNKS = (200, 1, 300, 57)
DECODED = 10


@dataclass
class Walk:
    """A sequence that is read from its start to its end.

    Attributes:
        reference: the logits of a one-shot pass, [tokens, vocabulary].
    """

    sequence_id: int
    tokens: npt.NDArray[np.uint32]
    pages: npt.NDArray[np.int32]
    reference: torch.Tensor = field(repr=False)
    position: int = 0

    @property
    def left(self) -> int:
        """Tokens not read yet."""
        return len(self.tokens) - self.position

    def chunk(self, length: int) -> Chunk:
        """Go on by at most ``length`` tokens."""
        start, end = self.position, min(self.position + length, len(self.tokens))
        self.position = end
        table = self.pages[: -(-end // PAGE_TOKENS)]
        return Chunk(SequenceId(self.sequence_id), start, self.tokens[start:end], (table,), True)


class Forgetful(CpuBackend):
    """A mutant: it sees only the last ``keys`` keys."""

    def __init__(self, keys: int) -> None:
        self._keys = keys

    def attend(
        self,
        query: torch.Tensor,
        layer: LayerPages,
        plan: CpuPlan,
        *,
        scale: float,
        window: int | None = None,
    ) -> Attended:
        """Wrong."""
        narrow = min(window or self._keys, self._keys)
        return super().attend(query, layer, plan, scale=scale, window=narrow)


def worst(runner: Runner, walks: Sequence[Walk]) -> float:
    """The largest difference of any sampled logit while the sequences run interleaved.

    Prefill chunks and single tokens mixed first, then the last tokens together, one by one.
    """
    differences = []
    step = 0
    while any(walk.left for walk in walks):
        prefill = any(walk.left > DECODED for walk in walks)
        going = [walk for walk in walks if walk.left > DECODED or not prefill]
        chunks = [
            walk.chunk(min(CHUNKS[(step + index) % len(CHUNKS)], walk.left - DECODED))
            if prefill
            else walk.chunk(1)
            for index, walk in enumerate(going)
        ]
        logits = runner.run(StepPlan(tuple(chunks)))
        for walk, row in zip(going, logits, strict=True):
            differences.append(float((row - walk.reference[walk.position - 1]).abs().max()))
        step += 1
    return float(np.max(differences))


class CountedGraphs(DecodeGraphs):
    """The eager twin of a runner's graphs for two and four rows; it is taken from then on.

    Attributes:
        taken: rows of the steps that came.
    """

    def __init__(self, runner: Runner, *, scratch_page: int) -> None:
        super().__init__(
            runner.decode, (2, 4), CPU, blocks=8, scratch_page=scratch_page, capture=repeat_eagerly
        )
        self.taken: list[int] = []
        runner.graphs = self

    def run(self, inputs: DecodeInputs, policy: ModelPolicy = FULL_MODEL) -> torch.Tensor:
        """See ``DecodeGraphs.run``."""
        self.taken.append(inputs.rows)
        return super().run(inputs, policy)


def runner_of(
    model: torch.nn.Module,
    *,
    pages: int = 16,
    backend: Backend | None = None,
    running: torch.nn.Module | None = None,
) -> Runner:
    """A runner over pages full of NaN, so that whatever must not be read shows.

    ``running`` computes what ``model`` says.
    """
    layers = [shape.pages(pages, dtype=torch.float32, device=CPU) for shape in probe(model, CPU)]
    for layer in layers:
        layer.keys.fill_(float("nan"))
        layer.values.fill_(float("nan"))
    return Runner(running or model, layers, backend or CpuBackend())


@torch.inference_mode()
def walks_of(
    eager: torch.nn.Module, lengths: Sequence[int], vocabulary: int, *, seed: int = 0
) -> list[Walk]:
    """Random sequences over shuffled pages, with the logits that transformers computes."""
    rng = np.random.default_rng(seed)
    pages = rng.permutation(16).astype(np.int32)
    walks, used = [], 0
    for number, length in enumerate(lengths):
        count = -(-length // PAGE_TOKENS)
        tokens = rng.integers(3, vocabulary, length).astype(np.uint32)
        ids = torch.from_numpy(tokens.astype(np.int64))[None]
        reference = eager(input_ids=ids, use_cache=False).logits[0]
        walks.append(Walk(number, tokens, pages[used : used + count], reference))
        used += count
    return walks
