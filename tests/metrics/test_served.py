"""A real server with a real decoder is scraped, and what it counts is what happened."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version
from shutil import which
from typing import Any

import grpc
import pytest
import pytest_asyncio

from longspan.server.limits import Limits
from longspan.server.metrics.metrics import Metrics
from longspan.v1 import document_service_pb2 as documents_pb
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.cached import told
from tests.e2e.generation import Written, hear, prompt, sequences_of
from tests.e2e.raw_calls import chunk, collect, header, store
from tests.e2e.real_decoders import answering, streaming_decoder
from tests.e2e.workers import quiet_log
from tests.metrics.scrape import Scrape, plain, scraped
from tests.support.serving import Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

GENERATE = "longspan.v1.InferenceService/Generate"
UPLOAD = "longspan.v1.DocumentService/Upload"
GET = "longspan.v1.DocumentService/GetDocument"
CANARY = "Quokka"
TEXT = f"{CANARY} notifies the customer within 20 hours of any incident. " * 40
PAGE = 256
REQUESTS = 3
ON: dict[str, Any] = {
    "metrics": {"listen": "127.0.0.1:0"},
    "limits": Limits(requests=REQUESTS, kv_free_space_bytes=0),
    "result_cache_memory": 1 << 20,
    "result_cache_disk": 1 << 20,
}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with quiet_log(caplog):
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def serving(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    folder = tmp_path_factory.mktemp("metrics")
    model = streaming_decoder(folder / "model")
    # A fork of the template would be there again before anybody has looked at the gauges.
    async with answering(folder / "data", model, worker_template=None, **ON) as running:
        yield running


def port_of(serving: Serving) -> int:
    port = serving.server.metrics_port
    assert port is not None
    return port


async def now(serving: Serving) -> Scrape:
    """A scrape behind what workers tell of the steps that are over."""
    # A heartbeat comes every quarter of a second, whatever happens.
    await asyncio.sleep(0.4)
    return await scraped(port_of(serving))


def greedy(text: str) -> pb.Task:
    return prompt(text, max_tokens=6, temperature=0.0)


class Grown:
    """How much the values have grown between two scrapes."""

    def __init__(self, before: Scrape, after: Scrape) -> None:
        self._before, self._after = before, after

    def by(self, name: str, **labels: str) -> float:
        return self._after.value(name, **labels) - self._before.value(name, **labels)


async def asked(serving: Serving, document_id: str, text: str) -> tuple[Written, Grown]:
    before = await now(serving)
    written = await told(serving, document_id, greedy(text))
    return written, Grown(before, await now(serving))


async def test_an_upload_counts_its_bytes(serving: Serving) -> None:
    before = await now(serving)
    data = f"Another {TEXT}".encode()
    await store(serving, data)
    after = await scraped(
        port_of(serving),
        lambda one: one.value("longspan_documents") > before.value("longspan_documents"),
    )
    grown = Grown(before, after)
    assert grown.by("longspan_upload_bytes_total") == len(data)
    assert grown.by("longspan_documents") == 1
    assert grown.by("longspan_document_bytes") == len(data)
    assert grown.by("longspan_rpc_started_total", method=UPLOAD) == 1
    assert grown.by("longspan_rpc_duration_seconds_count", method=UPLOAD, status="OK") == 1
    assert after.value("longspan_uploads_open") == 0
    assert after.value("longspan_requests_active") == 0


async def test_an_answer_counts_its_tokens_and_times(serving: Serving) -> None:
    document = await store(serving, f"First {TEXT}".encode())
    written, grown = await asked(serving, document.document_id, "Go on.")
    usage = written.end.usage
    prompt_tokens = usage.document_tokens + usage.task_tokens
    assert prompt_tokens > 2 * PAGE
    assert usage.cached_tokens == 0
    assert grown.by("longspan_tokens_total", kind="prefill") == prompt_tokens
    assert grown.by("longspan_tokens_total", kind="cached") == 0
    assert grown.by("longspan_tokens_total", kind="decode") == usage.output_tokens
    # The last token of the prompt gives the first of the answer.
    computed = prompt_tokens + usage.output_tokens - 1
    assert grown.by("longspan_batch_tokens_sum", role="decoder") == computed
    steps = grown.by("longspan_steps_total", role="decoder")
    assert grown.by("longspan_batch_tokens_count", role="decoder") == steps >= usage.output_tokens
    assert grown.by("longspan_batch_wait_seconds_count", role="decoder") >= 1
    pages = prompt_tokens // PAGE
    assert grown.by("longspan_kv_lookups_total", tier="pool", result="miss") == pages
    assert grown.by("longspan_kv_lookups_total", tier="disk", result="miss") == pages
    for name in ("time_to_first_token", "time_per_output_token"):
        assert grown.by(f"longspan_{name}_seconds_count") == 1
        assert grown.by(f"longspan_{name}_seconds_sum") > 0
    requests = "longspan_request_duration_seconds_count"
    assert grown.by(requests, task="prompt", length="short") == grown.by(requests) == 1
    ended = "longspan_rpc_duration_seconds_count"
    assert grown.by(ended, method=GENERATE, status="OK") == grown.by(ended) == 1
    lookups = "longspan_result_cache_lookups_total"
    for level in ("l1", "l2", "flight"):
        assert grown.by(lookups, level=level, result="miss") == 1
    assert grown.by(lookups, result="hit") == 0


async def test_what_was_answered_before_is_found(serving: Serving) -> None:
    """The same request in the result cache, another one's pages in the pool."""
    document = await store(serving, f"Second {TEXT}".encode())
    await told(serving, document.document_id, greedy("Once."))
    _, grown = await asked(serving, document.document_id, "Once.")
    assert grown.by("longspan_result_cache_lookups_total", level="l1", result="hit") == 1
    assert grown.by("longspan_result_cache_lookups_total", level="l2") == 0
    assert grown.by("longspan_tokens_total") == 0
    assert grown.by("longspan_request_duration_seconds_count") == 1
    assert grown.by("longspan_time_to_first_token_seconds_count") == 1
    assert grown.by("longspan_time_per_output_token_seconds_count") == 0
    before = await now(serving)
    written, grown = await asked(serving, document.document_id, "Twice.")
    cached = written.end.usage.cached_tokens
    assert cached >= 2 * PAGE
    assert grown.by("longspan_tokens_total", kind="cached") == cached
    # What was begun alone is not counted as cached, but the page was found.
    pages = -(-cached // PAGE)
    lookups = "longspan_kv_lookups_total"
    await scraped(
        port_of(serving),
        lambda one: (
            one.value(lookups, tier="pool", result="hit")
            == before.value(lookups, tier="pool", result="hit") + pages
        ),
    )


async def test_pages_are_counted_where_they_lie(serving: Serving) -> None:
    document = await store(serving, f"Third {TEXT}".encode())
    await told(serving, document.document_id, greedy("Go on."))
    scrape = await scraped(
        port_of(serving),
        lambda one: (
            one.value("longspan_kv_pages", tier="disk", state="cached") > 0
            and one.value("longspan_kv_pages", tier="pool", state="used") == 0
            and one.value("longspan_kv_pages", tier="pool", state="cached") > 0
        ),
    )
    pages = {
        one.labels["state"]: one.value for one in scrape.samples("longspan_kv_pages", tier="pool")
    }
    capacity = scrape.value("longspan_kv_capacity_bytes", tier="pool")
    page_bytes = capacity / sum(pages.values())
    assert scrape.value("longspan_kv_bytes", tier="pool") == page_bytes * pages["cached"]
    assert scrape.value("longspan_kv_capacity_bytes", tier="disk") == serving.config.kv_disk
    assert 0 < scrape.value("longspan_kv_bytes", tier="disk") < serving.config.kv_disk
    assert scrape.value("longspan_kv_breaker_open", tier="disk") == 0
    assert scrape.value("longspan_kv_corrupt_total") == 0
    assert scrape.value("longspan_kv_store_failures_total") == 0
    assert scrape.samples("longspan_kv_pages", tier="ram") == []
    assert scrape.value("longspan_worker_memory_bytes", role="decoder") > 10 << 20
    used = scrape.value("longspan_memory_used_bytes")
    assert 0 < used < scrape.value("longspan_memory_limit_bytes")
    assert scrape.value("longspan_event_loop_lag_seconds_count") > 0
    assert scrape.value("process_resident_memory_bytes") > 0


async def sending(*messages: documents_pb.UploadRequest) -> AsyncIterator[Any]:
    """These messages, then silence."""
    for message in messages:
        yield message
    await asyncio.sleep(60)


async def test_a_refusal_counts_under_its_reason(serving: Serving) -> None:
    before = await now(serving)
    held = [serving.documents.Upload(sending(header())) for _ in range(REQUESTS)]
    for one in held:
        await one.read()
    full = await scraped(port_of(serving))
    assert full.value("longspan_requests_active") == REQUESTS
    assert full.value("longspan_uploads_open") == REQUESTS
    _, refusal = await collect(serving.documents.Upload(sending()))
    assert refusal is not None
    for one in held:
        one.cancel()
    await serving.settled()
    with pytest.raises(grpc.aio.AioRpcError):
        await serving.documents.GetDocument(documents_pb.GetDocumentRequest(document_id="none"))
    grown = Grown(before, await now(serving))
    rejected = "longspan_requests_rejected_total"
    assert grown.by(rejected, reason="QUEUE_FULL") == 1
    assert grown.by(rejected, reason="DOCUMENT_MISSING") == 1
    assert grown.by(rejected) == 2
    ended = "longspan_rpc_duration_seconds_count"
    assert grown.by(ended, method=UPLOAD, status="RESOURCE_EXHAUSTED") == 1
    assert grown.by(ended, method=UPLOAD, status="CANCELLED") == REQUESTS
    assert grown.by(ended, method=GET, status="NOT_FOUND") == 1


async def test_calls_cut_by_client_or_deadline_are_told_apart(serving: Serving) -> None:
    before = await now(serving)
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await hear(serving.documents.Upload(sending(header(), chunk(0, b"half")), timeout=0.5))
    assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    cut = serving.documents.Upload(sending(header(), chunk(0, b"half")), timeout=60)
    await cut.read()
    cut.cancel()
    await serving.settled()
    grown = Grown(before, await now(serving))
    ended = "longspan_rpc_duration_seconds_count"
    assert grown.by(ended, method=UPLOAD, status="DEADLINE_EXCEEDED") == 1
    assert grown.by(ended, method=UPLOAD, status="CANCELLED") == 1
    assert grown.by(ended) == grown.by("longspan_rpc_started_total") == 2
    assert grown.by("longspan_requests_rejected_total") == 0


async def test_a_killed_worker_is_replaced_and_nothing_counted_is_lost(serving: Serving) -> None:
    document = await store(serving, f"Fourth {TEXT}".encode())
    await told(serving, document.document_id, greedy("Before."))
    before = await now(serving)
    [pid] = sequences_of(serving).pids
    os.kill(pid, signal.SIGKILL)
    down = await scraped(
        port_of(serving),
        lambda one: one.value("longspan_workers", role="decoder", state="ready") == 0,
    )
    assert down.value("longspan_workers", role="decoder") == 1
    up = await scraped(
        port_of(serving),
        lambda one: one.value("longspan_workers", role="decoder", state="ready") == 1,
    )
    grown = Grown(before, up)
    assert grown.by("longspan_worker_restarts_total", role="decoder", reason="signal") == 1
    assert grown.by("longspan_worker_restarts_total") == 1
    assert grown.by("longspan_tokens_total") == grown.by("longspan_steps_total") == 0
    written, grown = await asked(serving, document.document_id, "After.")
    usage = written.end.usage
    assert grown.by("longspan_tokens_total", kind="decode") == usage.output_tokens
    assert grown.by("longspan_tokens_total", kind="cached") == usage.cached_tokens > 0
    # The new process has them from the disk, and begins to count at nothing.
    hits = {"name": "longspan_kv_lookups_total", "tier": "disk", "result": "hit"}
    earlier = before.value(**hits)
    await scraped(port_of(serving), lambda one: one.value(**hits) > earlier)


async def test_everything_in_the_catalogue_is_exposed_and_nothing_else(serving: Serving) -> None:
    scrape = await now(serving)
    catalogue = {_type_name(one.name, one.kind): one for one in Metrics().catalogue}
    ours = {name for name in scrape.families if name.startswith("longspan_")}
    assert ours == catalogue.keys()
    for name in ours:
        family, described = scrape.families[name], catalogue[name]
        assert family.type == described.kind
        assert family.documentation == described.meaning
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == set(described.labels), sample
    assert any(name.startswith("process_") for name in scrape.families)
    [info] = scrape.samples("longspan_build_info")
    assert info.labels == {"version": version("longspan")}


def _type_name(name: str, kind: str) -> str:
    return name.removesuffix({"counter": "_total", "info": "_info"}.get(kind, ""))


async def test_nothing_that_a_client_says_is_exposed(serving: Serving) -> None:
    document = await store(serving, f"Fifth {TEXT}".encode())
    await told(serving, document.document_id, greedy(f"Who is {CANARY}?"))
    unknown: Any = serving.channel.unary_unary(f"/longspan.v1.InferenceService/{CANARY}")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await unknown(b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    text = (await now(serving)).text
    assert CANARY.lower() not in text.lower()
    assert document.document_id not in text
    assert "req_" not in text


async def test_names_follow_the_conventions(serving: Serving) -> None:
    promtool = which("promtool")
    if promtool is None:
        pytest.skip("no promtool here")
    scrape = await asyncio.to_thread(plain, port_of(serving))
    checked = await asyncio.to_thread(
        subprocess.run,
        [promtool, "check", "metrics"],
        input=scrape.text,
        capture_output=True,
        text=True,
    )
    assert (checked.returncode, checked.stderr) == (0, "")
