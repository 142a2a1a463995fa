"""What anybody on the network can cost a server that wants keys."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from longspan.v1 import document_service_pb2 as docs
from longspan.v1 import document_service_pb2_grpc
from tests.e2e.workers import server_process
from tests.metrics.scrape import scraped
from tests.pool.harness import until
from tests.security.callers import KeysFile, methods, path_of, refusal
from tests.security.http2 import answer, beginning, call_of, empty_call
from tests.security.test_api_keys import keyed
from tests.support.collector import collecting
from tests.support.tracing import request_id

CHECK = "/grpc.health.v1.Health/Check"
LIST = "/longspan.v1.DocumentService/ListDocuments"
GET = "/longspan.v1.DocumentService/GetDocument"
UPLOAD = "/longspan.v1.DocumentService/Upload"
TRACEPARENT = ("traceparent", f"00-{0xABC:032x}-{0xDEF:016x}-01")
STARTED = "longspan_rpc_started_total"
# With this bound gRPC itself takes four times as many calls.
REQUESTS = 40


async def test_a_stranger_invents_no_methods(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor lines of the log: a metric's labels are never forgotten."""
    caplog.set_level(logging.DEBUG)
    async with keyed(tmp_path, metrics={"listen": "127.0.0.1:0"}) as (running, _):
        known = {path_of(method).removeprefix("/") for method in methods()}
        for number in range(5):
            path = f"/longspan.v1.Invented/Wombat{number}"
            assert (await ended(running.channel, path)) is grpc.StatusCode.UNIMPLEMENTED
        await refusal(running.channel, UPLOAD, None)
        assert running.server.metrics_port is not None
        scrape = await scraped(
            running.server.metrics_port, lambda one: one.value(STARTED, method=UPLOAD[1:]) == 1
        )
        labels = {sample.labels["method"] for sample in scrape.samples(STARTED)}
        assert labels <= known
    assert "Wombat" not in caplog.text


async def test_refused_uploads_do_not_fill_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with keyed(tmp_path) as (running, _):
        for number in range(40):
            sent = (TRACEPARENT, ("tracestate", f"Wombat {number}"))
            await refusal(running.channel, UPLOAD, sent)
    refused = [record for record in caplog.records if record.name.endswith("auth.refusals")]
    assert 20 <= len(refused) < 40
    assert "longspan.access" not in caplog.text
    assert "Wombat" not in caplog.text


async def test_metadata_that_is_no_text_is_not_quoted_in_the_log(tmp_path: Path) -> None:
    """A credential with one wrong byte is still a secret."""
    keys = KeysFile.of(tmp_path, "a")
    sent = b"Bearer " + keys.keys["a"].encode() + b"\xff"
    async with server_process(
        tmp_path, "--encoder", "none", "--auth.keys-file", str(keys.path)
    ) as (server):
        call = call_of(UPLOAD.encode(), (b"authorization", sent), (b"tracestate", b"Wombat\xff"))
        heard = await answer(server.port, call, b"grpc-message")
        assert b"grpc-status\x0216" in heard
        await until(lambda: "malformed" in server.log.read_text())
    assert keys.keys["a"] not in server.log.read_text()
    assert "Wombat" not in server.log.read_text()


async def test_refused_calls_leave_no_span(tmp_path: Path) -> None:
    """Also where the stranger says that its trace is recorded."""
    with collecting() as collector:
        tracing = {"endpoint": collector.endpoint, "lookup_ratio": 1.0}
        async with keyed(tmp_path, tracing=tracing) as (running, file):
            for _ in range(5):
                await refusal(running.channel, UPLOAD, (TRACEPARENT,))
            request = docs.ListDocumentsRequest()
            await running.documents.ListDocuments(request, metadata=file.sent("a"))
        assert [span.name for span in collector.spans] == [
            "longspan.v1.DocumentService/ListDocuments"
        ]


async def test_a_refusal_names_its_request(tmp_path: Path) -> None:
    async with keyed(tmp_path) as (running, _):
        call: Any = running.channel.stream_stream(UPLOAD)(timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
        assert (await request_id(call)).startswith("req_")
        details = dict(refused.value.trailing_metadata() or ())["grpc-status-details-bin"]
        assert b"req_" in bytes(details)


async def test_health_checks_without_a_message_do_not_take_every_place(tmp_path: Path) -> None:
    async with keyed(tmp_path, limits={"requests": REQUESTS, "handshake_s": 2.0}) as (
        running,
        file,
    ):
        begun: list[Any] = [running.channel.stream_stream(CHECK)() for _ in range(5 * REQUESTS)]
        reads = [asyncio.ensure_future(outcome(call)) for call in begun]
        async with grpc.aio.insecure_channel(running.target) as channel:
            stub: Any = document_service_pb2_grpc.DocumentServiceStub(channel)
            async with asyncio.timeout(10):
                while sum(read.done() for read in reads) < 2 * REQUESTS:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await stub.ListDocuments(docs.ListDocumentsRequest(), metadata=file.sent("a"))
            assert set(await asyncio.gather(*reads)) == {
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                grpc.StatusCode.INVALID_ARGUMENT,
            }
            health: Any = health_pb2_grpc.HealthStub(channel)
            answer = await health.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_one_tenant_does_not_take_every_place(tmp_path: Path) -> None:
    """By calls whose message never comes, by watching, by uploads that do not begin."""
    limits = {"requests": REQUESTS, "tenant_requests": 2, "handshake_s": 2.0, "chunk_wait_s": 2.0}
    async with keyed(tmp_path, "a", "b", limits=limits) as (running, file):
        sent = file.sent("a")
        begun: list[Any] = [
            running.channel.stream_stream(path)(metadata=sent)
            for _ in range(5 * REQUESTS)
            for path in (GET, UPLOAD)
        ]
        stub: Any = health_pb2_grpc.HealthStub(running.channel)
        message = health_pb2.HealthCheckRequest()
        begun += [stub.Watch(message, metadata=sent) for _ in range(5 * REQUESTS)]
        reads = [asyncio.ensure_future(outcome(call)) for call in begun]
        await until(lambda: sum(read.done() for read in reads) > 12 * REQUESTS, 20.0)
        async with grpc.aio.insecure_channel(running.target) as channel:
            other: Any = document_service_pb2_grpc.DocumentServiceStub(channel)
            for _ in range(20):
                await other.ListDocuments(docs.ListDocumentsRequest(), metadata=file.sent("b"))
                await asyncio.sleep(0.05)
            await until(lambda: all(read.done() for read in reads), 20.0)
            # Those that watch do so still.
            await other.ListDocuments(docs.ListDocumentsRequest(), metadata=sent)
        for call in begun:
            call.cancel()
    outcomes = Counter(read.result() for read in reads)
    # A quarter of what the server admits may watch; two uploads are admitted, and told of progress.
    assert REQUESTS // 4 <= outcomes.pop(grpc.StatusCode.OK) <= REQUESTS // 4 + 2
    assert outcomes.pop(grpc.StatusCode.RESOURCE_EXHAUSTED) >= 14 * REQUESTS
    assert 0 < sum(outcomes.values()) <= 8


@pytest.mark.parametrize("path", [LIST, CHECK])
async def test_answers_that_are_not_taken_do_not_hold_every_place(
    tmp_path: Path, path: str
) -> None:
    """A connection whose windows are shut, so that no answer can be sent."""
    limits = {"requests": REQUESTS, "tenant_requests": 2, "handshake_s": 2.0, "chunk_wait_s": 2.0}
    async with keyed(tmp_path, "a", "b", limits=limits) as (running, file):
        sent = [] if path == CHECK else [(k.encode(), v.encode()) for k, v in file.sent("a")]
        port = int(running.target.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        swallowing = asyncio.ensure_future(reader.read())
        writer.write(beginning(window=0))
        for number in range(5 * REQUESTS):
            writer.write(empty_call(number, path.encode(), *sent))
            await asyncio.sleep(0.005)
        async with grpc.aio.insecure_channel(running.target) as channel:
            other: Any = document_service_pb2_grpc.DocumentServiceStub(channel)
            for _ in range(20):
                await other.ListDocuments(docs.ListDocumentsRequest(), metadata=file.sent("b"))
                await asyncio.sleep(0.05)
        assert not swallowing.done()
        writer.close()
        await swallowing


async def outcome(call: Any) -> grpc.StatusCode:
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


async def ended(channel: Any, path: str) -> grpc.StatusCode:
    return await outcome(channel.stream_stream(path)(timeout=10))
