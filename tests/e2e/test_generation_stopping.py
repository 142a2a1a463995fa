"""A decoder stops for nobody: cancel, deadline, closed channel, killed client, in every phase."""

from __future__ import annotations

import asyncio
import itertools
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from longspan.v1 import document_pb2, inference_service_pb2_grpc
from tests.e2e.conversation import Uploading, analyze_messages, sending
from tests.e2e.generation import Written, hear, prompt, sequences_of
from tests.e2e.real_decoders import (
    Heartbeats,
    answering,
    listening_to_hearts,
    streaming_decoder,
)
from tests.e2e.vanishing_client import phase_messages
from tests.e2e.workers import quiet_log
from tests.pool.harness import until
from tests.support.data import EXAMPLES, REPOSITORY
from tests.support.serving import Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

PHASES = ("upload", "queue", "prefill", "decode")
# Tens of thousands of tokens are read for many seconds; a few hundred are answered at once.
LONG_BYTES, SHORT_BYTES = 50_000, 300
DEADLINE_S = 1.2
STOP_S = 3.0
# The step that ran when the order came, and one whose plan was made by then.
LAST_STEPS = 2
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with quiet_log(caplog):
        yield


@dataclass(frozen=True)
class Observed:
    """A server and the hearts of its workers."""

    serving: Serving
    hearts: Heartbeats


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def observed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Observed]:
    """A worker that takes one request at a time, in small steps, and never ends by itself."""
    folder = tmp_path_factory.mktemp("stopping")
    model = streaming_decoder(folder / "model", context_tokens=65536, stop_tokens=())
    settings = {"model_sequences": 1, "step_tokens": 512, "kv_memory": 256 << 20}
    with listening_to_hearts() as hearts:
        async with answering(folder / "data", model, **settings) as serving:
            yield Observed(serving, hearts)


@dataclass
class Scene:
    """A call that will be interrupted in one phase.

    Attributes:
        heard: what the client heard so far.
        upload_id: from Accepted.
        others: calls before this one.
    """

    observed: Observed
    phase: str
    data: bytes
    others: int
    heard: Written = field(default_factory=Written)
    upload_id: str = ""

    async def start(self, channel: grpc.aio.Channel, timeout_s: float | None = None) -> Any:
        """Begin the call, say what is said up to the phase, then nothing."""
        stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        # Not a request iterator: grpc's task that reads one outlives a broken stream.
        call = stub.Analyze(timeout=timeout_s)
        for message in phase_messages(self.phase, self.data):
            await call.write(message)
        return call

    async def listen(self, call: Any) -> grpc.StatusCode:
        """Hear everything; return how it ended."""
        try:
            async for event in call:
                self.heard.take(event)
                if event.HasField("accepted"):
                    self.upload_id = event.accepted.upload_id
        except grpc.aio.AioRpcError as error:
            return error.code()
        except asyncio.CancelledError:
            # A call cancelled on this side ends so; this task itself is never cancelled.
            return grpc.StatusCode.CANCELLED
        return grpc.StatusCode.OK

    def is_there(self) -> bool:
        """The server is in the phase."""
        stages, hearts = self.heard.stages, self.observed.hearts
        match self.phase:
            case "upload":
                return bool(self.upload_id) and hearts.used_pages > 0
            case "queue":
                waiting = sequences_of(self.observed.serving).stats().queued_jobs
                return document_pb2.STAGE_PREFILLING in stages and waiting == 1
            case "prefill":
                working = document_pb2.STAGE_PREFILLING in stages and hearts.used_pages > 0
                return working and document_pb2.STAGE_ANSWERING not in stages
            case _:
                return document_pb2.STAGE_ANSWERING in stages and hearts.used_pages > 0

    async def stops(self) -> None:
        """The decoder rests within a step, holds no page, and what can be resumed is kept."""
        serving, hearts = self.observed.serving, self.observed.hearts
        admission = serving.server.application.admission
        await until(lambda: admission.active == self.others, STOP_S)
        if self.others:
            await until(lambda: sequences_of(serving).stats().queued_jobs == 0, STOP_S)
            assert hearts.used_pages > 0
            return
        steps = hearts.steps
        last = await hearts.at_rest(STOP_S)
        print(f"{self.phase}: {last - steps} steps more")
        assert last - steps <= LAST_STEPS
        await serving.settled()
        if self.phase == "upload":
            resumed = Uploading(serving.documents)
            assert 0 < await resumed.open(self.upload_id) < len(self.data)
            resumed.call.cancel()


def _document(size: int) -> bytes:
    """One whose first words nobody has seen, so that no page of it is cached."""
    report = (EXAMPLES / "annual-report.md").read_bytes()[:size]
    return f"Copy {next(_numbers)}.\n\n".encode() + report.decode(errors="ignore").encode()


@asynccontextmanager
async def _scene(observed: Observed, phase: str) -> AsyncIterator[Scene]:
    """Prepare a phase; for "queue", another is before us until the block is left."""
    data = _document(SHORT_BYTES if phase in ("queue", "decode") else LONG_BYTES)
    others: list[asyncio.Task[Written]] = []
    serving, hearts = observed.serving, observed.hearts
    if phase == "queue":
        endless = analyze_messages(_document(SHORT_BYTES), prompt(max_tokens=30_000), 8000)
        others.append(asyncio.create_task(hear(serving.inference.Analyze(sending(endless)))))
        await until(lambda: hearts.used_pages > 0)
    yield Scene(observed, phase, data, len(others))
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await hearts.at_rest(STOP_S)
    await serving.settled()


@pytest.mark.parametrize("phase", PHASES)
async def test_a_cancelled_call_stops_its_decoder(observed: Observed, phase: str) -> None:
    """Cancel: compute ends within a step, every page is free, nothing is left."""
    async with _scene(observed, phase) as scene:
        call = await scene.start(observed.serving.channel)
        listening = asyncio.create_task(scene.listen(call))
        await until(scene.is_there)
        call.cancel()
        assert await listening is grpc.StatusCode.CANCELLED
        await scene.stops()


@pytest.mark.parametrize("phase", PHASES)
async def test_a_deadline_ends_the_call_and_its_decoding(observed: Observed, phase: str) -> None:
    """The deadline falls into the phase; the caller and the worker are both told."""
    async with _scene(observed, phase) as scene:
        call = await scene.start(observed.serving.channel, DEADLINE_S)
        listening = asyncio.create_task(scene.listen(call))
        await until(scene.is_there)
        assert await listening is grpc.StatusCode.DEADLINE_EXCEEDED
        assert scene.heard.completed == []
        await scene.stops()


@pytest.mark.parametrize("phase", PHASES)
async def test_a_closed_channel_stops_the_decoder(observed: Observed, phase: str) -> None:
    """A client that closes its connection is a client that cancels."""
    async with _scene(observed, phase) as scene:
        channel = grpc.aio.insecure_channel(observed.serving.target)
        call = await scene.start(channel)
        listening = asyncio.create_task(scene.listen(call))
        await until(scene.is_there)
        await channel.close()
        assert await listening is grpc.StatusCode.CANCELLED
        await scene.stops()


@pytest.mark.parametrize("phase", PHASES)
async def test_a_killed_client_stops_the_decoder(
    observed: Observed, phase: str, tmp_path: Path
) -> None:
    """SIGKILL of the client's process, which says no goodbye."""
    async with _scene(observed, phase) as scene:
        path = tmp_path / "document.md"
        path.write_bytes(scene.data)
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.e2e.vanishing_client"),
            *(observed.serving.target, phase, str(path)),
            cwd=REPOSITORY,
            stdout=PIPE,
        )
        hearing = asyncio.create_task(_hear_process(client, scene))
        try:
            await until(scene.is_there)
        finally:
            client.kill()
            await client.wait()
            await hearing
        await scene.stops()


async def _hear_process(client: asyncio.subprocess.Process, scene: Scene) -> None:
    assert client.stdout is not None
    async for line in client.stdout:
        kind, value = line.decode().split()
        if kind == "upload":
            scene.upload_id = value
        else:
            scene.heard.progress.append(document_pb2.Progress(stage=int(value)))  # type: ignore[arg-type]


async def test_the_server_answers_as_before_after_all_that(observed: Observed) -> None:
    """What was stopped leaves the worker as it was: the same answer before and after a cancel."""
    serving, hearts = observed.serving, observed.hearts
    data = _document(SHORT_BYTES)

    async def answer() -> Written:
        messages = analyze_messages(data, prompt(max_tokens=30, seed=1, temperature=0.5), 100)
        return await hear(serving.inference.Analyze(sending(messages)))

    before = await answer()
    call = await Scene(observed, "decode", data, 0).start(serving.channel)
    listening = asyncio.create_task(hear(call))
    await until(lambda: hearts.used_pages > 0)
    call.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    after = await answer()
    assert after.text == before.text
    assert after.end.usage.output_tokens == before.end.usage.output_tokens == 30
    await hearts.at_rest(STOP_S)
