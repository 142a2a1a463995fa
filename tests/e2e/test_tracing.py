"""One trace from a client through the server to a real decoder, which dies in the last test."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from longspan.client import Answer, AsyncClient, Generation, Prompt
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.conversation import analyze_messages
from tests.e2e.generation import hear, prompt, sequences_of
from tests.e2e.real_decoders import answering, streaming_decoder
from tests.e2e.workers import quiet_log
from tests.support.collector import Collector, Received, collecting
from tests.support.data import EXAMPLES
from tests.support.serving import Serving
from tests.support.tracing import Caller, calling, server_span

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANARY = "Wombat7431"
QUESTION = f"Who pays the {CANARY}question?"
TITLE = f"{CANARY}title"
DOCUMENT = (
    f"The {CANARY}supplier pays.\n\n"
    + (EXAMPLES / "services-agreement.md").read_text("utf-8")[:7_000]
).encode()
PIECE_BYTES, PAUSE_S = 1_000, 0.1
ANSWER_TOKENS = 12


@dataclass(frozen=True)
class Traced:
    """A server whose spans are collected, and a caller that traces."""

    serving: Serving
    collector: Collector
    caller: Caller

    async def analyze(self, task: Prompt) -> tuple[str, Answer]:
        """Stream the document up slowly; the id of the trace, and the answer."""
        async with AsyncClient(self.serving.target) as client:
            with self.caller.span() as trace_id:
                async with client.analyze(_paced(), task, title=TITLE) as stream:
                    return trace_id, await stream.result()

    async def spans(self, trace_id: str, *needed: str) -> dict[str, Received]:
        """The spans of a trace by name, once the needed ones have come."""

        def found() -> dict[str, Received] | None:
            named = {span.name: span for span in self.collector.trace(trace_id)}
            return named if named.keys() >= set(needed) else None

        spans: dict[str, Received] = await self.collector.until(found)
        return spans


async def _paced() -> AsyncIterator[bytes]:
    for start in range(0, len(DOCUMENT), PIECE_BYTES):
        yield DOCUMENT[start : start + PIECE_BYTES]
        await asyncio.sleep(PAUSE_S)


def _messages(**options: Any) -> Iterator[pb.AnalyzeRequest]:
    return analyze_messages(DOCUMENT, prompt(**options), PIECE_BYTES)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with quiet_log(caplog):
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traced(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Traced]:
    """A random decoder that reads while a document arrives, and a result cache."""
    folder = tmp_path_factory.mktemp("tracing")
    model = streaming_decoder(folder / "model", context_tokens=8192)
    with collecting() as collector, calling(collector) as caller:
        settings = {"tracing": {"endpoint": collector.endpoint}, "result_cache_memory": 1 << 20}
        async with answering(folder / "data", model, **settings) as serving:
            yield Traced(serving, collector, caller)
        tracing = serving.server.application.tracing
        assert tracing.spans_dropped == 0
        assert tracing.spans_exported > 0


CALL = "longspan.v1.InferenceService/Analyze"
PARTS = ("upload", "tokenise", "queue", "prefill", "decode")


async def test_one_trace_holds_client_server_and_worker(traced: Traced) -> None:
    task = Prompt(QUESTION, generation=Generation(max_tokens=ANSWER_TOKENS))
    trace_id, answer = await traced.analyze(task)
    spans = await traced.spans(trace_id, "client", CALL, *PARTS)
    call = spans[CALL]
    assert (call.kind, call.status) == ("SERVER", "UNSET")
    assert call.parent_id == spans["client"].span_id
    assert {spans[name].parent_id for name in PARTS} == {call.span_id}
    by_worker = {span.name for span in spans.values() if span.service == "longspan-worker"}
    assert by_worker == {"prefill", "decode"}
    for name in PARTS:
        assert call.start_ns <= spans[name].start_ns <= spans[name].end_ns <= call.end_ns
    usage = answer.completed.usage
    counts = [call.attributes[f"gen_ai.usage.{kind}_tokens"] for kind in ("input", "output")]
    assert counts == [usage.document_tokens + usage.task_tokens, ANSWER_TOKENS]
    assert spans["tokenise"].attributes["longspan.tokens"] == usage.document_tokens
    assert spans["upload"].attributes["longspan.bytes"] == len(DOCUMENT)
    assert spans["prefill"].attributes["longspan.tokens"] == counts[0]
    assert spans["decode"].attributes["gen_ai.usage.output_tokens"] == ANSWER_TOKENS


async def test_the_prefill_overlaps_the_upload(traced: Traced) -> None:
    task = Prompt(f"{QUESTION} Again.", generation=Generation(max_tokens=ANSWER_TOKENS))
    trace_id, _ = await traced.analyze(task)
    spans = await traced.spans(trace_id, CALL, *PARTS)
    upload, prefill, decode = (spans[name] for name in ("upload", "prefill", "decode"))
    assert prefill.start_ns < upload.end_ns < prefill.end_ns <= decode.start_ns
    # The events are few, however many steps there were.
    steps = [event.attributes["longspan.steps"] for event in prefill.events]
    assert steps == [1 << place for place in range(len(steps))]


async def test_pages_and_answers_that_were_kept_show(traced: Traced) -> None:
    inference = traced.serving.inference
    stored = await hear(inference.Analyze(_messages(max_tokens=8)))
    document_id = stored.end.documents[0].document_id
    request = pb.GenerateRequest(
        document_ids=[document_id], task=prompt(max_tokens=9, temperature=0.0)
    )
    spans = []
    for _ in range(2):
        call = inference.Generate(request)
        await hear(call)
        spans.append(await server_span(traced.collector, call))
        await traced.serving.server.application.results.kept()
    made, told = spans
    prefill = await traced.collector.until(lambda: traced.collector.child(made, "prefill"))
    assert prefill.attributes["longspan.kv.cached_tokens"] > 0
    # They ended before the calls, so that they came before them.
    lookups = [traced.collector.child(span, "look up answer") for span in spans]
    levels = [one.attributes["longspan.answer_cache"] for one in lookups if one is not None]
    assert levels == ["miss", "memory"]
    assert told.attributes["longspan.answer_cache"] == "memory"
    assert traced.collector.child(told, "prefill") is None


async def test_a_caller_that_does_not_record_is_not_recorded(traced: Traced) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    headers = (("traceparent", f"00-{trace_id}-b7ad6b7169203331-00"),)
    analyze = traced.serving.inference.Analyze
    await hear(analyze(_messages(max_tokens=2), metadata=headers))
    recorded = analyze(_messages(max_tokens=3))
    await hear(recorded)
    span = await server_span(traced.collector, recorded)
    await traced.collector.until(lambda: traced.collector.child(span, "decode"))
    assert traced.collector.trace(trace_id) == []


async def test_no_span_holds_content(traced: Traced) -> None:
    task = Prompt(QUESTION, generation=Generation(max_tokens=200, temperature=1.0, seed=5))
    trace_id, answer = await traced.analyze(task)
    async with AsyncClient(traced.serving.target) as client:
        with pytest.raises(Exception, match=CANARY):
            await client.get(f"doc_{CANARY}")
        refused = Prompt(QUESTION, generation=Generation(regex=f"({CANARY}"))
        with pytest.raises(Exception, match="regex"):
            await client.prompt(
                answer.completed.documents[0], QUESTION, generation=refused.generation
            ).result()
    await traced.spans(trace_id, "client", CALL, *PARTS)
    said = [word for word in answer.text.split() if len(word) >= 8 and word.isascii()]
    sent = b"".join(traced.collector.wire)
    assert len(sent) > 10_000
    assert CANARY.encode() not in sent
    assert said
    assert not [word for word in said if word.encode() in sent]


async def test_a_replay_belongs_to_the_same_trace(traced: Traced) -> None:
    """The worker is killed amid an answer; the next one goes on, below the same span."""
    messages = _messages(max_tokens=600, temperature=1.0, seed=3)
    call = traced.serving.inference.Analyze(messages)
    killed = False
    completed = None
    async for event in call:
        if event.WhichOneof("event") == "delta" and not killed:
            [pid] = sequences_of(traced.serving).pids
            os.kill(pid, signal.SIGKILL)
            killed = True
        if event.WhichOneof("event") == "completed":
            completed = event.completed
    assert completed is not None
    span = await server_span(traced.collector, call)
    assert (span.status, span.attributes["longspan.retries"]) == ("UNSET", 1)
    assert [event.name for event in span.events] == ["longspan.worker.lost"]
    trace = await traced.collector.until(
        lambda: _with_decode(traced.collector.trace(span.trace_id))
    )
    waits = [one.attributes["longspan.attempt"] for one in trace if one.name == "queue"]
    assert waits == [1, 2]
    [decode] = [one for one in trace if one.name == "decode"]
    assert decode.parent_id == span.span_id
    assert 0 < decode.attributes["longspan.replayed_tokens"] < completed.usage.output_tokens


def _with_decode(spans: list[Received]) -> list[Received] | None:
    return spans if "decode" in {span.name for span in spans} else None
