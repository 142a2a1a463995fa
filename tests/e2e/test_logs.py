"""The log of a server and its decoder at debug level: ids in each line, content in none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio

from longspan.v1 import document_service_pb2 as docs
from longspan.v1 import document_service_pb2_grpc, inference_service_pb2_grpc
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.conversation import analyze_messages, tenant
from tests.e2e.generation import Written, hear, prompt
from tests.e2e.raw_calls import Refusal
from tests.e2e.real_decoders import STORY, streaming_decoder
from tests.e2e.workers import ServerProcess, server_process
from tests.pool.harness import until
from tests.support.tracing import request_id

pytestmark = pytest.mark.asyncio(loop_scope="module")

CANARY = "Wombat7431"
DOCUMENT = f"The {CANARY}supplier pays. {STORY}" * 20
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = ("traceparent", f"00-{TRACE_ID}-b7ad6b7169203331-01")
TENANT = "acme"


@dataclass(frozen=True)
class Logged:
    """A server process and a channel to it."""

    server: ServerProcess
    channel: grpc.aio.Channel

    @property
    def inference(self) -> Any:
        return inference_service_pb2_grpc.InferenceServiceStub(self.channel)

    @property
    def documents(self) -> Any:
        return document_service_pb2_grpc.DocumentServiceStub(self.channel)

    def lines(self) -> list[dict[str, Any]]:
        """The log; every line must be an object."""
        return [json.loads(line) for line in self.server.log.read_text().splitlines()]

    async def access(self, call: Any) -> dict[str, Any]:
        """The access line of a call, by the id that the client was told."""
        wanted = await request_id(call)

        def found() -> list[dict[str, Any]]:
            lines = [line for line in self.lines() if line["logger"] == "longspan.access"]
            return [line for line in lines if line["request_id"] == wanted]

        await until(lambda: bool(found()))
        [line] = found()
        return line


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def logged(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Logged]:
    """A server with a small decoder."""
    folder = tmp_path_factory.mktemp("logs")
    model = streaming_decoder(folder / "model", context_tokens=4096)
    options = ["--log-format", "json", "--log-level", "debug", "--encoder", "none"]
    options += ["--model", str(model), "--dtype", "float32", "--worker-threads", "1"]
    options += ["--kv-memory", "64MiB", "--trust-tenant-metadata", "true"]
    async with (
        server_process(folder, *options) as server,
        grpc.aio.insecure_channel(server.target) as channel,
    ):
        yield Logged(server, channel)


async def _analyze(logged: Logged, **options: Any) -> tuple[Any, Written]:
    messages = analyze_messages(DOCUMENT.encode(), prompt(f"{CANARY}?", **options), 1_000)
    call = logged.inference.Analyze(messages, metadata=(*tenant(TENANT), TRACEPARENT))
    return call, await hear(call)


async def test_a_call_leaves_one_line_that_says_what_it_was(logged: Logged) -> None:
    call, written = await _analyze(logged, max_tokens=4)
    line = await logged.access(call)
    assert line["message"].startswith("Analyze OK ")
    assert (line["level"], line["status"]) == ("INFO", "OK")
    assert (line["tenant"], line["method"]) == (TENANT, "longspan.v1.InferenceService/Analyze")
    # The caller's trace, though this server records none.
    assert line["trace_id"] == TRACE_ID
    usage = written.end.usage
    assert line["bytes"] == len(DOCUMENT.encode())
    assert line["input_tokens"] == usage.document_tokens + usage.task_tokens
    assert line["output_tokens"] == usage.output_tokens == 4
    assert line["duration_s"] > 0


async def test_what_is_small_is_told_at_debug(logged: Logged) -> None:
    call = logged.documents.ListDocuments(docs.ListDocumentsRequest())
    await call
    line = await logged.access(call)
    assert (line["level"], line["status"]) == ("DEBUG", "OK")


async def test_a_refusal_names_its_request(logged: Logged) -> None:
    request = pb.GenerateRequest(document_ids=["doc_none"], task=prompt(f"{CANARY}?"))
    call = logged.inference.Generate(request)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await hear(call)
    line = await logged.access(call)
    assert (line["level"], line["status"]) == ("INFO", "NOT_FOUND")
    assert line["request_id"] == Refusal.of(failure.value).request_id


async def test_lines_of_workers_say_whose_they_are(logged: Logged) -> None:
    lines = [line for line in logged.lines() if line.get("worker") == "worker-0"]
    [serving] = [line for line in lines if "serving" in line["message"]]
    assert (serving["level"], serving["logger"]) == ("INFO", "longspan.worker.process")
    assert "DEBUG" in {line["level"] for line in lines}


async def test_no_line_holds_content(logged: Logged) -> None:
    _, written = await _analyze(logged, max_tokens=200, temperature=1.0, seed=5)
    with pytest.raises(grpc.aio.AioRpcError):
        await _analyze(logged, regex=f"({CANARY}")
    said = [word for word in written.text.split() if len(word) >= 8 and word.isascii()]
    log = logged.server.log.read_text()
    assert len(logged.lines()) > 5
    assert said
    assert CANARY not in log
    assert not [word for word in said if word in log]
