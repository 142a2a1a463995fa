"""Servers whose decoder is real, what it must say, and what its workers tell of themselves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from longspan.internal.v1 import worker_service_pb2 as internal
from longspan.server.decoder.template import load_template
from longspan.server.decoder.tokens import load_prompt_tokeniser
from longspan.server.pool.watchdog import Watchdog
from longspan.server.pool.worker import Worker
from longspan.server.tasks.task import Task
from tests.e2e.generation import model_folder
from tests.e2e.workers import serving_with
from tests.pool.harness import until
from tests.support.data import shared_data
from tests.support.serving import Serving
from tests.worker.decoders import tiny_decoder

KV_BYTES = 64 << 20
VOCABULARY = 600
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball. She wanted to play with it, but it was too high.\n\n"
    'Lily\'s mom said, "You can try to reach it." Lily was happy and started to run. '
)


def stories_folder() -> Path:
    """A small model that writes real sentences; skips the test where it is absent."""
    return shared_data("models", "stories260K", "hf")


def streaming_decoder(folder: Path, *, thinks: bool = False, **settings: Any) -> Path:
    """A random decoder whose tokenizer's words are Qwen2's, so that documents are cut early."""
    tiny_decoder("qwen2", folder, vocab_size=VOCABULARY, **settings)
    return model_folder(folder, thinks=thinks)


@asynccontextmanager
async def answering(data_dir: Path, model: Path, **settings: Any) -> AsyncIterator[Serving]:
    """A server with this decoder in float32, on one thread; leaks are checked at the end."""
    settings = {
        "encoder": "none",
        "model": str(model),
        "dtype": "float32",
        "kv_memory": KV_BYTES,
        "worker_threads": 1,
        **settings,
    }
    async with serving_with(data_dir, **settings) as serving:
        yield serving


@dataclass(frozen=True, slots=True)
class Written:
    """What transformers writes behind a prompt.

    Attributes:
        task_tokens: of the prompt around the document.
    """

    text: str
    document_tokens: int
    task_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Reference:
    """The naive way to an answer: one prompt, ``generate``, ``decode``."""

    folder: Path

    def greedy(self, task: Task, document: str, max_tokens: int) -> Written:
        """What the server must answer at temperature 0."""
        import torch

        tokeniser = load_prompt_tokeniser(self.folder)
        around = tokeniser.tokenise(load_template(self.folder).parts(task, datetime.now()))
        middle = list(tokeniser.plain.encode(document, add_special_tokens=False).ids)
        prompt = [*around.prefix.tolist(), *middle, *around.suffix.tolist()]
        ids = torch.tensor([prompt])
        output = self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=max_tokens,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        text = tokeniser.plain.decode(output, skip_special_tokens=True)
        return Written(text, len(middle), len(prompt) - len(middle), len(output))

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModelForCausalLM

        model: Any = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
        return model.eval()


@dataclass
class Heartbeats:
    """The last heartbeat of each worker process that a server in this process has."""

    last: dict[int, internal.Heartbeat] = field(default_factory=dict)
    heard: int = 0

    @property
    def steps(self) -> int:
        """Steps that the workers have finished."""
        return sum(one.step for one in self.last.values())

    @property
    def used_pages(self) -> int:
        """KV pages that sequences hold."""
        return sum(one.used_pages for one in self.last.values())

    @property
    def working(self) -> list[int]:
        """Processes that have jobs."""
        return [pid for pid, one in self.last.items() if one.jobs]

    @property
    def resting(self) -> bool:
        """No worker computes, has a job or holds a page."""
        return not any(one.busy or one.jobs or one.used_pages for one in self.last.values())

    def hear(self, pid: int, heartbeat: internal.Heartbeat) -> None:
        """Note one."""
        self.last[pid] = heartbeat
        self.heard += 1

    async def at_rest(self, at_most_s: float) -> int:
        """Wait until nothing computes, then through two more heartbeats; the steps by then."""
        await until(lambda: self.resting, at_most_s)
        steps, heard = self.steps, self.heard
        await until(lambda: self.heard >= heard + 2 * len(self.last))
        assert self.resting
        assert self.steps == steps
        return steps


@contextmanager
def listening_to_hearts() -> Iterator[Heartbeats]:
    """Hear the heartbeats of all workers, which the server itself makes little of."""
    hearts, handle = Heartbeats(), Worker._handle

    def hear(worker: Worker, event: internal.Event, watchdog: Watchdog) -> None:
        if event.HasField("heartbeat") and worker.pid is not None:
            hearts.hear(worker.pid, event.heartbeat)
        handle(worker, event, watchdog)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker, "_handle", hear)
        yield hearts


def in_pieces(data: bytes, next_size: Callable[[], int]) -> Iterator[bytes]:
    """``data``, cut into pieces of the sizes that ``next_size`` gives."""
    start = 0
    while start < len(data):
        end = start + next_size()
        yield data[start:end]
        start = end


async def slowly(pieces: Iterator[bytes], rng: random.Random, pause_s: float) -> Any:
    """The pieces with pauses between some of them."""
    for piece in pieces:
        if rng.random() < 0.2:
            await asyncio.sleep(rng.uniform(0.0, pause_s))
        yield piece
