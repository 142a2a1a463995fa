"""Servers whose decoder is a scripted worker, and what they say."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.pre_tokenizers import Sequence as PreTokenizers
from tokenizers.trainers import BpeTrainer

from longspan.server.pool.config import PoolConfig
from longspan.server.queue.sequences import SequenceDispatcher
from longspan.server.text.cuts import QWEN2
from longspan.v1 import document_pb2
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.workers import serving_with
from tests.support.data import EXAMPLES
from tests.support.serving import Serving

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n{% if thinks %}<think>\n{% endif %}"
)


def model_folder(folder: Path, *, thinks: bool = False) -> Path:
    """A folder with all that the server reads of a model: a tokenizer and a chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(BPE())
    split = Split(Regex(QWEN2), "isolated")
    byte_level = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = PreTokenizers([split, byte_level])
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(
        vocab_size=600,
        show_progress=False,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=ByteLevel.alphabet(),
    )
    tokenizer.train([str(EXAMPLES / "services-agreement.md")], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    template = CHAT.replace("{% if thinks %}", "{% if true %}" if thinks else "{% if false %}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return folder


@asynccontextmanager
async def generating(
    folder: Path, pool: PoolConfig, *, thinks: bool = False, **settings: Any
) -> AsyncIterator[Serving]:
    """A server without an encoder whose model is what ``pool`` runs."""
    model = model_folder(folder / "model", thinks=thinks)
    settings = {"encoder": "none", "model": str(model), **settings}
    async with serving_with(folder / "data", None, pool, **settings) as serving:
        yield serving


def sequences_of(serving: Serving) -> SequenceDispatcher:
    """The queue before the server's decoder workers."""
    decoder = serving.server.application.decoder
    assert decoder is not None
    return decoder.dispatcher


def prompt(text: str = "Go on.", **options: Any) -> pb.Task:
    """A free instruction."""
    return pb.Task(prompt=pb.Prompt(text=text), generation=pb.GenerationOptions(**options))


@dataclass
class Written:
    """What one request with a decoder was told.

    Attributes:
        events: the kinds of the events but progress and acknowledgements, in order.
    """

    events: list[str] = field(default_factory=list)
    text: str = ""
    reasoning: str = ""
    citations: list[pb.Citation] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)
    rebuilt: list[pb.Rebuilt] = field(default_factory=list)
    progress: list[document_pb2.Progress] = field(default_factory=list)
    completed: list[pb.Completed] = field(default_factory=list)

    def take(self, event: Any) -> None:
        """Note one response message."""
        kind = event.WhichOneof("event")
        assert not self.completed, f"{kind} after Completed"
        match kind:
            case "progress":
                self.progress.append(event.progress)
            case "delta":
                self.text += event.delta.text
            case "reasoning":
                self.reasoning += event.reasoning.text
            case "citation":
                self.citations.append(event.citation)
            case "unverified":
                self.unverified.append(event.unverified.quote)
            case "rebuilt":
                self.rebuilt.append(event.rebuilt)
            case "completed":
                self.completed.append(event.completed)
        if kind not in ("progress", "ack", "accepted"):
            self.events.append(kind)

    @property
    def end(self) -> pb.Completed:
        """The one Completed."""
        [completed] = self.completed
        return completed

    @property
    def stages(self) -> list[int]:
        """The stages that progress named, each once, in order."""
        return list(dict.fromkeys(one.stage for one in self.progress))


async def hear(call: Any, written: Written | None = None) -> Written:
    """Everything a call says to its end."""
    written = written or Written()
    async for event in call:
        written.take(event)
    return written
