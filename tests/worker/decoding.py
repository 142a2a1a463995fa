"""A client for the sequences of a real decoder process, which checks what every answer must be."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from longspan.internal.v1 import worker_service_pb2 as pb
from tests.support.data import shared_data
from tests.worker.harness import Stream, Worker, opened, started

ENDS = ("finished", "cancelled", "failed")
TOLD = ("holdings", "forgotten", "verified")
KV_BYTES = 64 << 20


def stories() -> Path:
    """The folder of a tiny published model that writes stories; skips where it is absent."""
    return shared_data("models/stories260K/hf")


def stretched_stories(folder: Path, *, context_tokens: int) -> Path:
    """The same model for texts longer than it has learnt; returns ``folder``."""
    for file in stories().iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((stories() / "config.json").read_text())
    config["max_position_embeddings"] = context_tokens
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def story_tokens(text: str) -> list[int]:
    """A prompt for that model, with its first token."""
    from tokenizers import Tokenizer

    tokens: list[int] = Tokenizer.from_file(str(stories() / "tokenizer.json")).encode(text).ids
    return tokens


def starting(folder: Path, *flags: str, kv_bytes: int = KV_BYTES) -> AbstractContextManager[Worker]:
    """A decoder process; starting it takes seconds, ``wait_ready`` waits for them."""
    options = ("--role", "decoder", "--dtype", "float32", "--kv-bytes", str(kv_bytes))
    return started(str(folder), *options, *flags)


@contextmanager
def decoder(folder: Path, *flags: str, kv_bytes: int = KV_BYTES) -> Iterator[Worker]:
    """A decoder process that is ready."""
    with starting(folder, *flags, kv_bytes=kv_bytes) as worker:
        worker.wait_ready()
        yield worker


def packed(tokens: Sequence[int]) -> bytes:
    """Token ids as the wire has them."""
    return np.array(tokens, "<u4").tobytes()


@dataclass
class Answer:
    """What one sequence was told.

    Attributes:
        first: index of the next token that is expected.
        tokens: those that were generated here; delivered ones are not among them.
        texts: what each Generated said.
        prefilled: positions and cached positions, as they were reported.
        end: its terminal event.
    """

    job_id: int
    first: int = 0
    tokens: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    prefilled: list[tuple[int, int]] = field(default_factory=list)
    end: pb.Event | None = None

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(self.texts)

    @property
    def finished(self) -> pb.Finished:
        """The end, which must be a Finished."""
        assert self.end is not None
        assert self.end.WhichOneof("kind") == "finished", self.end
        return self.end.finished

    @property
    def reason(self) -> str:
        """Why it failed or finished; CANCELLED where it was cancelled."""
        assert self.end is not None
        match self.end.WhichOneof("kind"):
            case "failed":
                assert self.end.failed.message
                return self.end.failed.reason
            case "finished":
                name = pb.FinishReason.Name(self.end.finished.reason)
                return name.removeprefix("FINISH_REASON_")
        return "CANCELLED"

    def take(self, event: pb.Event) -> None:
        """Note one event; tokens come in order, each once, and nothing follows the end."""
        assert self.end is None, f"{event} after {self.end}"
        match event.WhichOneof("kind"):
            case "generated":
                assert event.generated.first == self.first
                new = np.frombuffer(event.generated.tokens, "<u4").tolist()
                self.tokens += new
                self.texts.append(event.generated.text)
                self.first += len(new)
            case "prefilled":
                assert not self.tokens
                state = (event.prefilled.tokens, event.prefilled.cached)
                assert not self.prefilled or state[0] > self.prefilled[-1][0]
                self.prefilled.append(state)
            case kind:
                assert kind in ENDS, event
                self.end = event
                if kind == "finished":
                    assert event.finished.output_tokens == self.first


class Decoding:
    """The sequences of one stream.

    Attributes:
        stream: for what a well-behaved client does not send.
        ready: of the worker.
        stores: it has tiers below its pool; pages are held while they are copied.
    """

    def __init__(self, stream: Stream, ready: pb.Ready) -> None:
        self.stream = stream
        self.ready = ready
        self.answers: dict[int, Answer] = {}
        self.told: list[pb.Event] = []
        self.stores = False

    async def ask(self, **command: Any) -> pb.Event:
        """Ask what the worker keeps, or tell it what to do with it; its answer."""
        await self.stream.call.write(pb.ExecuteRequest(**command))
        while not self.told:
            await self.read()
        return self.told.pop()

    async def open(
        self,
        prompt: Sequence[int],
        *,
        sealed: bool = True,
        tenant: str = "tenant",
        delivered: Sequence[int] = (),
        priority: int = 2,
        deadline_ms: int = 0,
        attention: str = "",
        task_start: int = 0,
        subject: str = "",
        trace: Mapping[str, str] | None = None,
        **sampling: Any,
    ) -> Answer:
        """Open a sequence under the next id; greedy, 32 tokens, unless ``sampling`` says else."""
        answer = Answer(len(self.answers) + 1, first=len(delivered))
        self.answers[answer.job_id] = answer
        message = pb.Open(
            job_id=answer.job_id,
            tenant=tenant,
            prompt=packed(prompt),
            sealed=sealed,
            sampling=pb.Sampling(**{"max_tokens": 32, "top_p": 1.0} | sampling),
            delivered=packed(delivered),
            priority=priority,
            deadline_ms=deadline_ms,
            attention=attention,
            task_start=task_start,
            subject=subject,
            trace=trace,
        )
        await self.stream.call.write(pb.ExecuteRequest(open=message))
        return answer

    async def append(
        self, answer: Answer, tokens: Sequence[int], *, seal: bool = False, task_start: int = 0
    ) -> None:
        """Continue a prompt."""
        message = pb.Append(
            job_id=answer.job_id, tokens=packed(tokens), seal=seal, task_start=task_start
        )
        await self.stream.call.write(pb.ExecuteRequest(append=message))

    async def cancel(self, answer: Answer) -> None:
        """Cancel a sequence."""
        await self.stream.cancel(answer.job_id)

    async def read(self) -> pb.Event:
        """Read one event, and give it to the sequence that it is about."""
        event = await self.stream.next_event()
        kind = event.WhichOneof("kind")
        if kind in TOLD:
            self.told.append(event)
        elif kind != "heartbeat":
            assert kind is not None
            self.answers[getattr(event, kind).job_id].take(event)
        return event

    async def ended(self, *answers: Answer) -> None:
        """Read until all of these have ended."""
        while any(answer.end is None for answer in answers):
            await self.read()

    async def answer(self, prompt: Sequence[int], **options: Any) -> Answer:
        """Open a sequence and read it to its end."""
        answer = await self.open(prompt, **options)
        await self.ended(answer)
        return answer

    async def generated(self, answer: Answer, count: int) -> None:
        """Read until a sequence has so many tokens here."""
        while len(answer.tokens) < count:
            assert answer.end is None
            await self.read()

    async def read_to(self, answer: Answer, position: int) -> None:
        """Read until so much of a prompt is said to be read."""
        while not answer.prefilled or answer.prefilled[-1][0] < position:
            assert answer.end is None
            await self.read()

    async def heartbeat(self) -> pb.Heartbeat:
        """The next heartbeat."""
        while (event := await self.read()).WhichOneof("kind") != "heartbeat":
            pass
        return event.heartbeat

    async def settled(self) -> None:
        """Nothing runs or waits, and no page is held but those that are being stored."""
        beat = await self.heartbeat()
        while beat.used_pages and not beat.busy and self.stores:
            beat = await self.heartbeat()
        assert (beat.busy, beat.jobs, list(beat.running), beat.used_pages) == (False, 0, [], 0)


@asynccontextmanager
async def decoding(worker: Worker, *, stores: bool = False) -> AsyncIterator[Decoding]:
    """A stream to a decoder; at its end every sequence must have ended, and every page be free."""
    async with opened(worker) as (stream, ready):
        sequences = Decoding(stream, ready)
        sequences.stores = stores
        yield sequences
        await sequences.ended(*sequences.answers.values())
        await sequences.settled()
