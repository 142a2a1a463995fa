"""Generated answers end to end: client, server and scripted decoder workers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from longspan.v1 import document_pb2
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.conversation import (
    analyze_header,
    analyze_messages,
    ask,
    chunks,
    commit,
    reason,
    sending,
    store,
)
from tests.e2e.generation import Written, generating, hear, prompt, sequences_of
from tests.e2e.raw_calls import Refusal, collect
from tests.e2e.workers import quiet_log
from tests.pool.harness import until
from tests.pool.stories import stories
from tests.pool.story_worker import kv_bytes
from tests.support.data import EXAMPLES
from tests.support.seeds import seeded
from tests.support.serving import Serving

AGREEMENT = (EXAMPLES / "services-agreement.md").read_bytes()
TRUE = "The Supplier warrants that the Services"
SAID = (
    "The text names it.\n</think>\n\nThe agreement says “Confidential   Information” and "
    "“nothing of this kind stands there at all”. Also “Neither party may assign”."
)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with quiet_log(caplog):
        yield


def _analyze(serving: Serving, data: bytes, task: pb.Task, size: int = 4000) -> object:
    return serving.inference.Analyze(sending(analyze_messages(data, task, size)))


async def _told(serving: Serving, data: bytes, task: pb.Task, size: int = 4000) -> Written:
    return await hear(_analyze(serving, data, task, size))


async def _stored(serving: Serving, ids: list[str], task: pb.Task) -> Written:
    request = pb.GenerateRequest(document_ids=ids, task=task)
    return await hear(serving.inference.Generate(request))


async def test_any_chunking_and_a_stored_document_give_the_same_answer(tmp_path: Path) -> None:
    """The text depends on document and task, not on how the bytes came; usage says what it was."""
    async with generating(tmp_path, stories("--chunk", "500")) as serving:
        task = prompt(max_tokens=40, seed=7)
        answers = [await _told(serving, AGREEMENT, task, size) for size in (977, 20_000)]
        document = answers[0].end.documents[0]
        answers.append(await _stored(serving, [document.document_id], task))
        first = answers[0]
        assert first.text
        assert len({answer.text for answer in answers}) == 1
        for answer in answers:
            usage = answer.end.usage
            assert usage.document_tokens == document.tokens > 1000
            assert usage.output_tokens <= 40
            assert usage.task_tokens > 20
            assert answer.end.model == "story"
            assert answer.events[-1] == "completed"
        assert first.end.usage.cached_tokens == 0
        assert answers[-1].end.usage.cached_tokens > 0


async def test_reasoning_and_quotations_are_told_apart(tmp_path: Path) -> None:
    """Reasoning is its own event; quotations are cited by exact bytes, or named as unverified."""
    quoted = "\n\n".join(
        ["Preamble.", "All of this is\nConfidential\nInformation, they said.", "The end."]
    )
    data = (quoted + "\n\nNeither party may assign — ünless both agree.\n\nLast.").encode()
    async with generating(tmp_path, stories("--say", SAID), thinks=True) as serving:
        answer = await _told(serving, data, ask("What is confidential?"))
        assert answer.reasoning.strip() == "The text names it."
        assert answer.text == SAID.split("</think>\n\n")[1]
        assert answer.unverified == ["nothing of this kind stands there at all"]
        document = answer.end.documents[0]
        for index, citation in enumerate(answer.citations, start=1):
            span, passage = citation.span, citation.passage
            assert citation.index == index
            assert citation.document_id == document.document_id
            assert data[span.start : span.end] == citation.quote.encode()
            assert passage.start <= span.start < span.end <= passage.end
        assert [one.quote for one in answer.citations] == ["Neither party may assign"]
        paragraph = answer.citations[0].passage
        assert data[paragraph.start : paragraph.end].decode().endswith("ünless both agree.")
        assert answer.end.finish_reason == pb.FINISH_REASON_STOP


async def test_the_decoder_reads_while_the_document_arrives(tmp_path: Path) -> None:
    """Tokens are prefilled before the commit; stages and counters only move forward."""
    async with generating(tmp_path, stories("--chunk", "100")) as serving:
        call = serving.inference.Analyze()
        written = Written()
        hearing = asyncio.create_task(hear(call, written))
        await call.write(analyze_header(prompt(max_tokens=30)))
        for chunk in chunks(AGREEMENT[:12_000], 3000):
            await call.write(pb.AnalyzeRequest(chunk=chunk))
        await until(lambda: bool(written.progress) and written.progress[-1].tokens_prefilled > 2000)
        uploading = written.progress[-1]
        assert uploading.stage == document_pb2.STAGE_UPLOADING
        assert uploading.tokens >= 2000
        for chunk in chunks(AGREEMENT, 3000, 12_000):
            await call.write(pb.AnalyzeRequest(chunk=chunk))
        await call.write(pb.AnalyzeRequest(commit=commit(AGREEMENT)))
        await hearing
        assert written.stages == [
            document_pb2.STAGE_UPLOADING,
            document_pb2.STAGE_PREFILLING,
            document_pb2.STAGE_ANSWERING,
        ]
        for name in ("tokens", "tokens_prefilled", "tokens_cached", "bytes_received"):
            counts = [getattr(one, name) for one in written.progress]
            assert counts == sorted(counts), name
        assert written.end.timings.first_delta.ToNanoseconds() > 0


async def test_several_documents_are_read_one_after_the_other(tmp_path: Path) -> None:
    """A task on several documents counts the tokens of each, and quotes any of them."""
    said = "It says “the second of two documents” and “the first of two documents”."
    async with generating(tmp_path, stories("--say", said)) as serving:
        texts = [f"This is the {place} of two documents." for place in ("first", "second")]
        documents = [await store(serving.documents, text.encode()) for text in texts]
        ids = [document.document_id for document in documents]
        answer = await _stored(serving, ids, pb.Task(summarize=pb.Summarize()))
        assert [one.document_id for one in answer.citations] == [ids[1], ids[0]]
        ends = answer.end.documents
        assert sum(one.tokens for one in ends) == answer.end.usage.document_tokens
        assert all(one.tokens > 5 for one in ends)


async def test_a_prompt_beyond_the_context_is_refused_before_the_upload_ends(
    tmp_path: Path,
) -> None:
    """The upload is refused as soon as its tokens are too many, and stays resumable."""
    async with generating(tmp_path, stories("--context", "500")) as serving:
        call = serving.inference.Analyze()
        await call.write(analyze_header(prompt()))
        for chunk in chunks(AGREEMENT[:6000], 1000):
            await call.write(pb.AnalyzeRequest(chunk=chunk))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await asyncio.wait_for(hear(call), 10.0)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert reason(refused.value) == "PROMPT_TOO_LONG"
        document = await store(serving.documents, AGREEMENT)
        request = pb.GenerateRequest(document_ids=[document.document_id], task=prompt())
        _, refusal = await collect(serving.inference.Generate(request))
        assert refusal is not None
        assert refusal.reason == "PROMPT_TOO_LONG"
        assert refusal.metadata["limit_tokens"] == "500"


async def _refusal(serving: Serving, task: pb.Task) -> Refusal:
    attempts = 3
    while True:
        attempts -= 1
        events, refusal = await collect(_analyze(serving, b"A short text.", task))
        assert refusal is not None
        # A write of grpc.aio that loses the race against the call's end hides its status.
        if refusal.message == "Internal error from Core" and attempts:
            continue
        assert not [event for event in events if event.WhichOneof("event") == "delta"]
        return refusal


@pytest.mark.parametrize(
    ("task", "field"),
    [
        (prompt(temperature=-0.5), "task.generation.temperature"),
        (prompt(stop=[pb.StopCondition()]), "task.generation.stop[0]"),
        (prompt(json_schema="{"), "task.generation.json_schema"),
        (prompt(max_tokens=0), "task.generation.max_tokens"),
        (pb.Task(prompt=pb.Prompt(text="x"), method=pb.METHOD_EXTRACTIVE), "task.method"),
    ],
    ids=["temperature", "stop", "schema", "max_tokens", "method"],
)
async def test_bad_options_are_refused_by_name(tmp_path: Path, task: pb.Task, field: str) -> None:
    """An option that no worker could use is refused at the header, with its path."""
    async with generating(tmp_path, stories()) as serving:
        refusal = await _refusal(serving, task)
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refusal.metadata["field"] == field


@pytest.mark.parametrize("policy", ["full", "window", "hybrid"])
async def test_an_answer_says_which_policy_it_was_read_under(tmp_path: Path, policy: str) -> None:
    """Each request has its own; the worker's figures end in Completed."""
    async with generating(tmp_path, stories()) as serving:
        answer = await _told(serving, AGREEMENT, prompt(max_tokens=5, attention=policy))
        document = answer.end.documents[0]
        answers = [answer, await _stored(serving, [document.document_id], prompt(max_tokens=5))]
        assert [one.end.attention.policy for one in answers] == [policy, "full"]
        for one in answers:
            usage, attention = one.end.usage, one.end.attention
            prompt_tokens = usage.document_tokens + usage.task_tokens
            task_start, seen = attention.kv_bytes - kv_bytes(prompt_tokens, 0), attention.seen_share
            assert usage.document_tokens < task_start < prompt_tokens
            assert seen == 0.5


async def test_a_policy_that_drops_pages_reads_what_others_refuse(tmp_path: Path) -> None:
    """Positions bound it, not the pages that it does not keep."""
    pool = stories("--context", "500", "--positions", "100000")
    async with generating(tmp_path, pool) as serving:
        assert (await _told(serving, AGREEMENT, prompt(max_tokens=5, attention="window"))).text
        document = await store(serving.documents, AGREEMENT)
        task = prompt(attention="hybrid")
        request = pb.GenerateRequest(document_ids=[document.document_id], task=task)
        _, refusal = await collect(serving.inference.Generate(request))
        assert refusal is not None
        assert (refusal.reason, refusal.metadata["limit_tokens"]) == ("PROMPT_TOO_LONG", "500")


async def test_an_unknown_policy_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    """At the header, before the document is sent."""
    async with generating(tmp_path, stories()) as serving:
        refusal = await _refusal(serving, prompt(attention="blocks"))
        assert (refusal.code, refusal.metadata["field"]) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "task.generation.attention",
        )
        assert "full, window, hybrid" in refusal.message


async def test_a_schema_that_the_worker_refuses_names_its_field(tmp_path: Path) -> None:
    """What only the worker can find wrong with a grammar comes back as a bad field."""
    async with generating(tmp_path, stories("--refuse", "BAD_GRAMMAR")) as serving:
        refusal = await _refusal(serving, prompt(regex="(("))
        assert refusal.metadata["field"] == "task.generation.regex"


async def test_the_extractive_method_needs_an_encoder(tmp_path: Path) -> None:
    """A server with a decoder only says so when it is asked for sentences."""
    async with generating(tmp_path, stories()) as serving:
        task = ask("why?")
        task.method = pb.METHOD_EXTRACTIVE
        refusal = await _refusal(serving, task)
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.UNAVAILABLE,
            "WORKERS_UNAVAILABLE",
        )
        assert "without an encoder" in refusal.message


async def test_answers_are_the_same_though_their_worker_is_killed(tmp_path: Path) -> None:
    """SIGKILL during upload, prefill and answer is a pause to the client, counted in usage."""
    rng = seeded()
    pool = stories("--chunk", "200", "--step-s", "0.004")
    async with generating(tmp_path, pool) as serving:
        tasks = [prompt(max_tokens=60, seed=number) for number in range(6)]
        expected = [await _told(serving, AGREEMENT, task) for task in tasks]
        retries = 0
        for _ in range(4):
            running = [asyncio.create_task(_told(serving, AGREEMENT, task)) for task in tasks]
            await asyncio.sleep(rng.uniform(0.02, 0.5))
            for pid in sequences_of(serving).pids:
                os.kill(pid, signal.SIGKILL)
            answers = await asyncio.gather(*running)
            assert [one.text for one in answers] == [one.text for one in expected]
            retries += sum(one.end.usage.retries for one in answers)
            await until(lambda: sequences_of(serving).ready)
        assert retries > 0


@pytest.mark.parametrize("moment", ["upload", "prefill", "decode"])
async def test_a_cancelled_call_frees_its_sequence(tmp_path: Path, moment: str) -> None:
    """A client that goes away leaves nothing behind: the leak check at the end holds."""
    chunk, step = ("20", "0.01") if moment == "prefill" else ("1000", "0.01")
    async with generating(tmp_path, stories("--chunk", chunk, "--step-s", step)) as serving:
        written = Written()
        call = serving.inference.Analyze()
        hearing = asyncio.create_task(hear(call, written))
        await call.write(analyze_header(prompt(max_tokens=10_000)))
        await call.write(pb.AnalyzeRequest(chunk=next(chunks(AGREEMENT, 8000))))
        dispatcher = sequences_of(serving)
        if moment != "upload":
            for one in chunks(AGREEMENT, 8000, 8000):
                await call.write(pb.AnalyzeRequest(chunk=one))
            await call.write(pb.AnalyzeRequest(commit=commit(AGREEMENT)))
        if moment == "decode":
            await until(lambda: bool(written.text))
        await until(lambda: not dispatcher.stats().idle)
        call.cancel()
        await asyncio.gather(hearing, return_exceptions=True)
        started_s = time.monotonic()
        await until(lambda: dispatcher.stats().idle, 2.0)
        assert time.monotonic() - started_s < 1.0


async def test_an_upload_alone_is_not_read_by_the_decoder(tmp_path: Path) -> None:
    """Storing a document costs the decoder nothing."""
    async with generating(tmp_path, stories()) as serving:
        document = await store(serving.documents, AGREEMENT)
        assert document.tokens == 0
        assert sequences_of(serving).stats().idle
