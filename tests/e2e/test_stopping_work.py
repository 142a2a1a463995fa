"""Work stops when nobody waits for it: cancel, deadline, closed channel, killed client."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from longspan.server.identity import DEFAULT_TENANT
from longspan.v1 import document_pb2, inference_service_pb2_grpc
from tests.e2e.conversation import Answer, Uploading, listen, store
from tests.e2e.vanishing_client import generate_request, phase_messages
from tests.e2e.workers import (
    dispatcher_of,
    forget_index,
    quiet_log,
    seconds_until_idle,
    serving_with,
)
from tests.pool.harness import config, until
from tests.support.data import EXAMPLES, REPOSITORY
from tests.support.serving import Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

STEP_S = 0.5
STOP_S = 3.0
OCCUPANTS = 8
UPLOADING = ("first", "upload", "indexing")
PHASES = (*UPLOADING, "queued", "answering")
# Falls into the phase: a question takes one step, its sentences the next one.
DEADLINES_S = {"answering": 1.4 * STEP_S}
DEADLINE_S = 1.3
_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with quiet_log(caplog):
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slow(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """A server whose worker takes one job at a time, half a second each."""
    pool = config("--step-s", str(STEP_S), "--batch", "1", window_tokens=1)
    async with serving_with(tmp_path_factory.mktemp("slow"), pool) as serving:
        yield serving


@pytest_asyncio.fixture(loop_scope="module")
async def settled(slow: Serving) -> AsyncIterator[Serving]:
    """The slow server, checked for leaks after each test."""
    yield slow
    await slow.settled()


def _new_document() -> bytes:
    report = (EXAMPLES / "annual-report.md").read_bytes()
    return report + f"\n\nCopy {next(_numbers)}.\n".encode()


async def _then_silence(messages: list[Any]) -> AsyncIterator[Any]:
    for message in messages:
        yield message
    await asyncio.Event().wait()


@dataclass
class Scene:
    """A call that will be interrupted in one phase.

    Attributes:
        document_id: what Generate asks about; empty when the call is an Analyze.
        heard: what the client heard so far.
    """

    serving: Serving
    phase: str
    data: bytes
    document_id: str
    documents_before: int
    heard: Answer = field(default_factory=Answer)

    def start(self, channel: grpc.aio.Channel, timeout_s: float | None = None) -> Any:
        """Begin the call and say what is said up to the phase, then nothing."""
        stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        if self.document_id:
            return stub.Generate(generate_request(self.document_id), timeout=timeout_s)
        messages = phase_messages(self.phase, self.data)
        return stub.Analyze(_then_silence(messages), timeout=timeout_s)

    async def listen(self, call: Any) -> grpc.StatusCode:
        """Hear everything; return how it ended."""
        try:
            async for event in call:
                self.heard.take(event)
        except grpc.aio.AioRpcError as error:
            return error.code()
        except asyncio.CancelledError:
            # A call cancelled on this side ends so; this task itself is never cancelled.
            return grpc.StatusCode.CANCELLED
        return grpc.StatusCode.OK

    async def reached(self) -> None:
        """Wait until the server is in the phase."""
        async with asyncio.timeout(10.0):
            while not await self._is_there():  # noqa: ASYNC110 (it has many conditions)
                await asyncio.sleep(0.01)

    async def _is_there(self) -> bool:
        app = self.serving.server.application
        stats = dispatcher_of(self.serving).stats()
        working = any(entry.jobs for entry in stats.in_flight)
        match self.phase:
            case "first":
                return app.admission.active == 1
            case "upload":
                return bool(self.heard.upload_id) and working and await self._new_documents() == 0
            case "indexing":
                return bool(self.heard.upload_id) and working and await self._new_documents() == 1
            case "queued":
                return app.admission.active == 1 + OCCUPANTS and stats.queued_jobs == OCCUPANTS
            case _:
                return document_pb2.STAGE_ANSWERING in self.heard.stages and working

    async def _new_documents(self) -> int:
        library = self.serving.server.application.library
        found = await library.documents(DEFAULT_TENANT, limit=1000, after=None)
        return len(found) - self.documents_before


@asynccontextmanager
async def _scene(serving: Serving, phase: str) -> AsyncIterator[Scene]:
    """Prepare a phase; for "queued", others are before us until the block is left."""
    data, document_id = _new_document(), ""
    if phase not in UPLOADING:
        document_id = (await store(serving.documents, data[-3000:])).document_id
    library = serving.server.application.library
    before = len(await library.documents(DEFAULT_TENANT, limit=1000, after=None))
    occupants = OCCUPANTS if phase == "queued" else 0
    calls = [serving.inference.Generate(generate_request(document_id)) for _ in range(occupants)]
    others = [asyncio.create_task(listen(call)) for call in calls]
    yield Scene(serving, phase, data, document_id, before)
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)


async def _stops(scene: Scene) -> None:
    """The server stops working for the call, and keeps what can be resumed."""
    admission = scene.serving.server.application.admission
    if scene.phase == "queued":
        async with asyncio.timeout(STOP_S):
            while admission.active > OCCUPANTS:  # noqa: ASYNC110 (a counter)
                await asyncio.sleep(0.01)
        return
    stopped_s = await seconds_until_idle(scene.serving, STOP_S)
    print(f"{scene.phase}: idle after {stopped_s:.2f} s")
    if scene.phase == "upload":
        resumed = Uploading(scene.serving.documents)
        assert 0 < await resumed.open(scene.heard.upload_id) < len(scene.data)
        resumed.call.cancel()


@pytest.mark.parametrize("phase", PHASES)
async def test_a_cancelled_call_stops_its_work(settled: Serving, phase: str) -> None:
    async with _scene(settled, phase) as scene:
        call = scene.start(settled.channel)
        listening = asyncio.create_task(scene.listen(call))
        await scene.reached()
        call.cancel()
        assert await listening is grpc.StatusCode.CANCELLED
        await _stops(scene)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_deadline_ends_the_call_and_its_work(settled: Serving, phase: str) -> None:
    timeout_s = DEADLINES_S.get(phase, DEADLINE_S)
    async with _scene(settled, phase) as scene:
        call = scene.start(settled.channel, timeout_s)
        started_s = time.monotonic()
        assert await scene.listen(call) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - started_s < timeout_s + 0.5
        await _stops(scene)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_closed_channel_stops_the_work(settled: Serving, phase: str) -> None:
    async with _scene(settled, phase) as scene:
        channel = grpc.aio.insecure_channel(settled.target)
        call = scene.start(channel)
        listening = asyncio.create_task(scene.listen(call))
        await scene.reached()
        await channel.close()
        assert await listening is grpc.StatusCode.CANCELLED
        await _stops(scene)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_killed_client_stops_the_work(settled: Serving, phase: str, tmp_path: Path) -> None:
    async with _scene(settled, phase) as scene:
        path = tmp_path / "document.md"
        path.write_bytes(scene.data)
        arguments = [settled.target, phase, str(path), *filter(None, [scene.document_id])]
        client = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.e2e.vanishing_client", *arguments),
            cwd=REPOSITORY,
            stdout=PIPE,
        )
        hearing = asyncio.create_task(_hear_process(client, scene.heard))
        try:
            await scene.reached()
        finally:
            client.kill()
            await client.wait()
            await hearing
        await _stops(scene)


async def _hear_process(client: asyncio.subprocess.Process, heard: Answer) -> None:
    assert client.stdout is not None
    async for line in client.stdout:
        kind, value = line.decode().split()
        if kind == "upload":
            heard.upload_id = value
        else:
            heard.stages.append(int(value))


async def test_a_shared_build_survives_one_caller_and_stops_when_both_are_gone(
    settled: Serving,
) -> None:
    document = await store(settled.documents, _new_document())
    alone = await listen(settled.inference.Generate(generate_request(document.document_id)))
    indexes = settled.server.application.indexes
    assert indexes is not None

    [first, _], heard, [dropped, kept] = await _two_on_one_build(settled, document.document_id)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await dropped
    assert indexes.builds == 1
    answer = await kept
    assert heard[0].completed == []
    assert answer.said == alone.said
    await settled.settled()

    calls, heard, listening = await _two_on_one_build(settled, document.document_id)
    for call in calls:
        call.cancel()
    stopped_s = await seconds_until_idle(settled, STOP_S)
    print(f"both gone: idle after {stopped_s:.2f} s")
    await asyncio.gather(*listening, return_exceptions=True)
    assert [one.completed for one in heard] == [[], []]


async def _two_on_one_build(
    serving: Serving, document_id: str
) -> tuple[list[Any], list[Answer], list[asyncio.Task[Answer]]]:
    """Two callers who wait for the same build: calls, what they heard, their listeners."""
    await forget_index(serving, document_id)
    calls: list[Any] = [serving.inference.Generate(generate_request(document_id)) for _ in "ab"]
    heard = [Answer(), Answer()]
    listening = [
        asyncio.create_task(listen(call, answer)) for call, answer in zip(calls, heard, strict=True)
    ]
    await until(lambda: all(document_pb2.STAGE_INDEXING in one.stages for one in heard))
    assert serving.server.application.indexes is not None
    assert serving.server.application.indexes.builds == 1
    return calls, heard, listening
