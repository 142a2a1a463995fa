"""Workers are killed, stopped or poisoned while callers wait; callers do not notice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from longspan.server.encoders import tokenizer_path
from longspan.server.pool.config import PoolConfig
from longspan.server.text.tokeniser import load_tokenizer
from longspan.v1 import document_service_pb2 as docs
from longspan.v1 import inference_service_pb2 as inference
from tests.e2e.conversation import (
    Answer,
    Uploading,
    analyze_messages,
    ask,
    listen,
    read_back,
    reason,
    sending,
    store,
    summarize,
    tenant,
)
from tests.e2e.workers import (
    dispatcher_of,
    forget_index,
    quiet_log,
    seconds_until_idle,
    serving_with,
)
from tests.pool.harness import config, until
from tests.support.data import EXAMPLES
from tests.support.seeds import seeded
from tests.support.serving import Serving

REQUESTS = 50
LANES = 4
REAL_REQUESTS = 8
REAL_KILLS = 2
REAL_BYTES = 7_000
STOP_S = 10.0
TASKS = (
    ask("How quickly must a security incident be notified?"),
    ask("Who may terminate for convenience?", citations=2),
    summarize(),
)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with quiet_log(caplog):
        yield


def _agreement(size_bytes: int | None = None) -> bytes:
    data = (EXAMPLES / "services-agreement.md").read_bytes()[:size_bytes]
    return data.decode(errors="ignore").encode()


@dataclass
class Requests:
    """Requests on fresh indexes, each compared with an undisturbed run of the same task.

    Attributes:
        data: the document; each lane has it under a tenant of its own.
        expected: answers of undisturbed runs, by task.
        longest_s: the longest undisturbed run.
    """

    serving: Serving
    data: bytes
    rng: random.Random
    documents: list[str] = field(default_factory=list)
    expected: list[Answer] = field(default_factory=list)
    longest_s: float = 0.0
    retries: int = 0
    done: int = 0

    async def prepare(self) -> None:
        """Store the document for each lane, and ask everything once undisturbed."""
        for lane in range(LANES):
            stored = await store(self.serving.documents, self.data, tenant(f"lane{lane}"))
            self.documents.append(stored.document_id)
        for task in TASKS:
            started_s = time.monotonic()
            self.expected.append(await self._generate(0, task))
            self.longest_s = max(self.longest_s, time.monotonic() - started_s)

    async def round(self, size: int, disturb: signal.Signals | None) -> None:
        """Some requests at once; their worker gets a signal at a random moment."""
        runs = [asyncio.create_task(self._one(lane)) for lane in range(size)]
        if disturb is not None:
            await asyncio.sleep(self.rng.uniform(0.0, self.longest_s))
            for pid in dispatcher_of(self.serving).pids:
                # Killed at the end of the round before, when nobody listened to it, it may be
                # gone, and the server not know.
                with suppress(ProcessLookupError):
                    os.kill(pid, disturb)
        await asyncio.gather(*runs)
        await until(lambda: dispatcher_of(self.serving).ready, 30.0)
        await self.serving.settled()

    async def _one(self, lane: int) -> None:
        number = self.rng.randrange(len(TASKS))
        run = self._analyze if self.rng.random() < 0.5 else self._generate
        answer = await run(lane, TASKS[number])
        self._compare(answer, self.expected[number], lane)
        self.retries += answer.end.usage.retries
        self.done += 1

    async def _generate(self, lane: int, task: inference.Task) -> Answer:
        document_id = self.documents[lane]
        await forget_index(self.serving, document_id, f"lane{lane}")
        request = inference.GenerateRequest(document_ids=[document_id], task=task)
        stub = self.serving.inference
        return await listen(stub.Generate(request, metadata=tenant(f"lane{lane}")))

    async def _analyze(self, lane: int, task: inference.Task) -> Answer:
        await forget_index(self.serving, self.documents[lane], f"lane{lane}")
        messages = analyze_messages(self.data, task, self.rng.randint(500, 4000))
        stub = self.serving.inference
        return await listen(stub.Analyze(sending(messages), metadata=tenant(f"lane{lane}")))

    def _compare(self, actual: Answer, expected: Answer, lane: int) -> None:
        assert [said[:4] for said in actual.said] == [said[:4] for said in expected.said]
        for one, other in zip(actual.said, expected.said, strict=True):
            # Two decimals are sent; the last bits depend on what a text was batched with.
            assert one[4:] == pytest.approx(other[4:], abs=0.011)
        assert actual.end.finish_reason == inference.FINISH_REASON_STOP
        assert [one.document_id for one in actual.end.documents] == [self.documents[lane]]
        assert actual.end.usage.document_tokens == expected.end.usage.document_tokens
        assert actual.end.usage.task_tokens == expected.end.usage.task_tokens
        assert actual.end.usage.cached_tokens == 0
        assert actual.stages == sorted(actual.stages)


async def test_fifty_requests_answer_alike_though_their_worker_is_killed_again_and_again(
    tmp_path: Path,
) -> None:
    rng = seeded()
    # Fifty deaths in a row would otherwise be spaced by ever longer pauses.
    pool = replace(config("--step-s", "0.02", window_tokens=32768), longest_backoff_s=0.02)
    async with serving_with(tmp_path, pool, trust_tenant_metadata=True) as serving:
        requests = Requests(serving, _agreement(), rng)
        await requests.prepare()
        kills = 0
        while requests.done < REQUESTS:
            await requests.round(
                min(rng.randint(1, LANES), REQUESTS - requests.done), signal.SIGKILL
            )
            kills += 1
        print(f"{kills} kills, {requests.retries} retries")
        assert requests.retries > 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def real(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """A server with the embedded model."""
    folder = tmp_path_factory.mktemp("real")
    async with serving_with(
        folder, trust_tenant_metadata=True, worker_threads=2, heartbeat_timeout_s=2.0
    ) as serving:
        yield serving


@pytest.mark.asyncio(loop_scope="module")
async def test_the_real_worker_goes_idle_within_a_step_of_a_cancel(real: Serving) -> None:
    report = (EXAMPLES / "annual-report.md").read_bytes()
    call = real.inference.Analyze(sending(analyze_messages(report, TASKS[0], 20_000)))
    listening = asyncio.create_task(listen(call))
    await until(lambda: any(entry.jobs for entry in dispatcher_of(real).stats().in_flight))
    await asyncio.sleep(0.2)
    call.cancel()
    stopped_s = await seconds_until_idle(real, STOP_S)
    print(f"idle after {stopped_s:.2f} s")
    await asyncio.gather(listening, return_exceptions=True)


@pytest.mark.asyncio(loop_scope="module")
async def test_requests_to_the_real_model_answer_alike_though_its_worker_is_killed(
    real: Serving,
) -> None:
    requests = Requests(real, _agreement(REAL_BYTES), seeded())
    await requests.prepare()
    for disturb in [signal.SIGKILL] * (REAL_KILLS - 1) + [signal.SIGSTOP]:
        await requests.round(REAL_REQUESTS // REAL_KILLS, disturb)
    print(f"{REAL_KILLS} deaths, {requests.retries} retries")
    assert requests.done == REAL_REQUESTS
    assert requests.retries > 0


async def test_a_stopped_worker_is_noticed_by_its_silence_and_the_request_completes(
    tmp_path: Path,
) -> None:
    pool = config("--step-s", "0.3", window_tokens=32768, heartbeat_timeout_s=0.6)
    async with serving_with(tmp_path, pool) as serving:
        dispatcher = dispatcher_of(serving)
        messages = list(analyze_messages(_agreement(), TASKS[0], 4000))
        undisturbed = await listen(serving.inference.Analyze(sending(messages)))
        await forget_index(serving, undisturbed.end.documents[0].document_id)
        call = asyncio.create_task(listen(serving.inference.Analyze(sending(messages))))
        await until(lambda: any(entry.jobs for entry in dispatcher.stats().in_flight))
        [stopped] = dispatcher.pids
        started_s = time.monotonic()
        os.kill(stopped, signal.SIGSTOP)
        await until(lambda: stopped not in dispatcher.pids)
        noticed_s = time.monotonic() - started_s
        answer = await call
        print(f"noticed after {noticed_s:.2f} s")
        assert noticed_s < 2.0
        assert answer.said == undisturbed.said
        assert answer.end.usage.retries > 0


def _poison() -> tuple[str, int]:
    """A word that is one token, and that token."""
    encoding = load_tokenizer(tokenizer_path("embedded")).encode("zebra", add_special_tokens=False)
    [token] = encoding.ids
    return "zebra", token


def _poisoned(size_bytes: int | None = None) -> bytes:
    word, _ = _poison()
    paragraphs = _agreement(size_bytes).decode().split("\n\n")
    paragraphs.insert(len(paragraphs) // 2, f"The mascot of the customer is a {word}.")
    return "\n\n".join(paragraphs).encode()


async def _refused(heard: Awaitable[object]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await heard
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert reason(caught.value) == "DOCUMENT_QUARANTINED"


@pytest.fixture
def poisonable() -> PoolConfig:
    """Workers that abort when they read the poisonous word."""
    _, token = _poison()
    return config("--poison", str(token), "--announce", "--step-s", "0.05", window_tokens=32768)


async def test_a_poisonous_document_is_refused_after_two_deaths_and_others_are_served(
    tmp_path: Path, poisonable: PoolConfig
) -> None:
    async with serving_with(tmp_path, poisonable) as serving:
        dispatcher = dispatcher_of(serving)
        innocent = analyze_messages(_agreement(), TASKS[0], 2000)
        poisonous = analyze_messages(_poisoned(), TASKS[0], 1 << 16)
        beside = asyncio.create_task(listen(serving.inference.Analyze(sending(innocent))))
        await _refused(listen(serving.inference.Analyze(sending(poisonous))))
        answer = await beside
        await until(lambda: dispatcher.ready)
        assert dispatcher.stats().restarts == 2
        assert len(answer.said) == 6
        await serving.settled()
        messages = analyze_messages(_agreement(), TASKS[0], 2000)
        again = await listen(serving.inference.Analyze(sending(messages)))
        assert again.said == answer.said


async def test_a_stored_document_found_guilty_is_refused_at_once_under_all_its_names(
    tmp_path: Path, poisonable: PoolConfig
) -> None:
    data = _poisoned(4000)
    async with serving_with(tmp_path, poisonable) as serving:
        dispatcher = dispatcher_of(serving)
        uploading = Uploading(serving.documents)
        await _upload_refused(uploading, "", data)
        await until(lambda: dispatcher.ready)
        assert dispatcher.stats().restarts == 2
        listed = await serving.documents.ListDocuments(docs.ListDocumentsRequest())
        [document] = listed.documents

        request = inference.GenerateRequest(document_ids=[document.document_id], task=TASKS[0])
        started_s = time.monotonic()
        await _refused(listen(serving.inference.Generate(request)))
        await _upload_refused(Uploading(serving.documents), uploading.upload_id, data)
        assert time.monotonic() - started_s < 1.0
        assert dispatcher.stats().restarts == 2
        assert await read_back(serving.documents, document.document_id) == data

        # Its content is known only at the commit: at most the job that ran then dies.
        await _upload_refused(Uploading(serving.documents), "", data)
        await serving.settled()
        await until(lambda: dispatcher.ready)
        assert dispatcher.stats().restarts <= 3
        innocent = await store(serving.documents, _agreement(4000))
        assert innocent.passages > 0


async def test_a_document_that_kills_while_it_arrives_ends_its_upload_and_every_resumption(
    tmp_path: Path, poisonable: PoolConfig
) -> None:
    data = _poisoned() + _agreement() * 4
    async with serving_with(tmp_path, poisonable) as serving:
        dispatcher = dispatcher_of(serving)
        uploading = Uploading(serving.documents)
        await uploading.open()
        await uploading.send(data, 0, 80_000, 20_000)
        await until(lambda: dispatcher.stats().restarts == 2)
        await until(lambda: dispatcher.ready)
        await _refused(_sent(uploading, data, 80_000))
        again = Uploading(serving.documents)
        assert await again.open(uploading.upload_id) >= 80_000
        await _refused(_sent(again, data, again.acknowledged))
        assert dispatcher.stats().restarts == 2
        assert dispatcher.ready


async def _upload_refused(uploading: Uploading, upload_id: str, data: bytes) -> None:
    start = await uploading.open(upload_id)
    await uploading.send(data, start, len(data), 1 << 16)
    await uploading.commit(data)
    await _refused(uploading.hear_to_the_end())


async def _sent(uploading: Uploading, data: bytes, start: int) -> None:
    hearing = asyncio.create_task(uploading.hear_to_the_end())
    with contextlib.suppress(asyncio.InvalidStateError):
        for chunk in range(start, len(data), 5000):
            await uploading.send(data, chunk, min(chunk + 5000, len(data)), 5000)
            await asyncio.sleep(0.02)
        # On a slow machine all was sent before the refusal: then there is only this to refuse.
        await uploading.commit(data)
    await hearing
