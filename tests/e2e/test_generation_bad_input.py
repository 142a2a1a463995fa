"""What a caller or an operator can get wrong about a generated answer: each has a name."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import pytest_asyncio

from longspan.server.decoder.options import GenerationLimits
from longspan.server.errors import ConfigError
from longspan.v1 import inference_service_pb2 as pb
from tests.e2e.conversation import analyze_header, analyze_messages, chunks, commit, store
from tests.e2e.generation import hear, prompt
from tests.e2e.raw_calls import Refusal, ask, collect, converse, open_uploads
from tests.e2e.real_decoders import STORY, answering, stories_folder
from tests.e2e.workers import quiet_log, serving_with
from tests.support.data import EXAMPLES
from tests.support.serving import Serving
from tests.worker.decoders import tiny_decoder
from tests.worker.models import skip_without_embedded

pytestmark = pytest.mark.asyncio(loop_scope="module")

Code = grpc.StatusCode
DATA = STORY.encode()
AGREEMENT = (EXAMPLES / "services-agreement.md").read_bytes()
CONTEXT_TOKENS = 512
STOPS = GenerationLimits().stops
EARLY_S = 8.0


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A refusal is no fault of the server: it logs no error."""
    with quiet_log(caplog):
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """The model that writes stories, and no encoder."""
    folder = tmp_path_factory.mktemp("bad")
    async with answering(folder, stories_folder()) as serving:
        yield serving


@pytest_asyncio.fixture(loop_scope="module")
async def settled(server: Serving, quiet: None) -> AsyncIterator[Serving]:
    """The server, which must be at rest and as able as before afterwards."""
    yield server
    await server.settled()
    request = analyze_messages(DATA, prompt(max_tokens=3), 100)
    events, refusal = await converse(server, "Analyze", request)
    assert refusal is None, refusal
    assert events[-1].completed.usage.output_tokens == 3


async def _refused(serving: Serving, task: pb.Task, data: bytes = DATA) -> Refusal:
    """The refusal of an Analyze, to which no part of an answer was said."""
    events, refusal = await converse(serving, "Analyze", analyze_messages(data, task, 1000))
    assert refusal is not None, events
    said = {event.WhichOneof("event") for event in events}
    assert not said & {"delta", "reasoning", "citation", "completed"}
    assert refusal.message
    assert "Traceback" not in refusal.message
    return refusal


def _method(task: pb.Task, method: pb.Method) -> pb.Task:
    task.method = method
    return task


NOT_COMPILING = json.dumps({"type": "object", "properties": {"a": {"type": "nonsense"}}})
TEXT_STOP, NO_STOP = pb.StopCondition(text="."), pb.StopCondition()
OPTIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "temperature": ({"temperature": -0.1}, "temperature", "between 0 and 100"),
    "hot": ({"temperature": 101.0}, "temperature", "between 0 and 100"),
    "nan": ({"temperature": float("nan")}, "temperature", "between 0 and 100"),
    "top_p": ({"top_p": 0.0}, "top_p", "above 0 and at most 1"),
    "top_k": ({"top_k": -1}, "top_k", "0 or more"),
    "min_p": ({"min_p": 1.5}, "min_p", "between 0 and 1"),
    "max_tokens": ({"max_tokens": 0}, "max_tokens", "between 1 and"),
    "stop type": ({"stop": [TEXT_STOP, NO_STOP]}, "stop[1]", "unknown stop type"),
    "stops": ({"stop": [TEXT_STOP] * (STOPS + 1)}, "stop", f"at most {STOPS} conditions"),
    "empty stop": ({"stop": [pb.StopCondition(text="")]}, "stop[0].text", "not empty"),
    "long stop": ({"stop": [pb.StopCondition(text="x" * 257)]}, "stop[0].text", "not 257"),
    "no JSON": ({"json_schema": "{'a'"}, "json_schema", "is not JSON"),
    "no object": ({"json_schema": "[1]"}, "json_schema", "an object or true"),
    "schema": ({"json_schema": NOT_COMPILING}, "json_schema", "nonsense"),
    "regex": ({"regex": "(unclosed"}, "regex", "("),
    "attention": ({"attention": "blocks"}, "attention", "full, window, hybrid, hierarchical"),
}


@pytest.mark.parametrize("name", OPTIONS)
async def test_a_bad_option_is_refused_by_its_name(settled: Serving, name: str) -> None:
    """Status, reason, field and message; in Analyze and Generate alike."""
    options, field, words = OPTIONS[name]
    document = await store(settled.documents, DATA)
    task = prompt(**options)
    request = pb.GenerateRequest(document_ids=[document.document_id], task=task)
    refusals = [await _refused(settled, task)]
    refusals += filter(None, [(await collect(settled.inference.Generate(request)))[1]])
    assert len(refusals) == 2
    for refusal in refusals:
        assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert refusal.metadata == {"field": f"task.generation.{field}"}
        assert words in refusal.message


async def test_a_schema_that_does_not_compile_is_refused_before_the_upload_ends(
    settled: Serving,
) -> None:
    """The worker is asked at the header: nobody sends a long document in vain."""
    call = settled.inference.Analyze()
    await call.write(analyze_header(prompt(json_schema=NOT_COMPILING)))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asyncio.wait_for(hear(call), EARLY_S)
    refusal = Refusal.of(refused.value)
    assert refusal.code is Code.INVALID_ARGUMENT
    assert refusal.metadata == {"field": "task.generation.json_schema"}


async def test_a_prompt_beyond_the_context_is_refused_before_the_upload_ends(
    settled: Serving,
) -> None:
    """As soon as the tokens are too many; the upload can be resumed and stored."""
    before = await open_uploads(settled)
    call = settled.inference.Analyze()
    await call.write(analyze_header(prompt()))
    for chunk in chunks(AGREEMENT[:12_000], 2000):
        await call.write(pb.AnalyzeRequest(chunk=chunk))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asyncio.wait_for(hear(call), EARLY_S)
    refusal = Refusal.of(refused.value)
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "PROMPT_TOO_LONG")
    assert refusal.metadata["field"] == "document"
    assert refusal.metadata["limit_tokens"] == str(CONTEXT_TOKENS)
    assert int(refusal.metadata["tokens"]) >= CONTEXT_TOKENS
    assert f"this model takes {CONTEXT_TOKENS - 1}" in refusal.message
    assert await open_uploads(settled) == before + 1


async def test_a_stored_document_beyond_the_context_is_refused(settled: Serving) -> None:
    """Generate says the same of what it reads from the disk."""
    document = await store(settled.documents, AGREEMENT)
    request = pb.GenerateRequest(document_ids=[document.document_id], task=prompt())
    events, refusal = await collect(settled.inference.Generate(request))
    assert refusal is not None, events
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "PROMPT_TOO_LONG")
    assert refusal.metadata["limit_tokens"] == str(CONTEXT_TOKENS)


async def test_a_task_beyond_the_context_is_refused_before_the_document_is_sent(
    settled: Serving,
) -> None:
    """What stands behind the document is known at the header already."""
    call = settled.inference.Analyze()
    await call.write(analyze_header(prompt("Why not? " * 400)))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asyncio.wait_for(hear(call), EARLY_S)
    refusal = Refusal.of(refused.value)
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "PROMPT_TOO_LONG")
    assert refusal.metadata["limit_tokens"] == str(CONTEXT_TOKENS)


async def test_an_answer_that_meets_the_end_of_the_context_is_cut(settled: Serving) -> None:
    """Asking for more than there is room for is no error: the reason says that it was cut."""
    task = prompt(max_tokens=5000, regex="[a-z ]{4000}")
    events, refusal = await converse(settled, "Analyze", analyze_messages(DATA, task, 1000))
    assert refusal is None, refusal
    completed = events[-1].completed
    assert completed.finish_reason == pb.FINISH_REASON_LENGTH
    usage = completed.usage
    assert usage.document_tokens + usage.task_tokens + usage.output_tokens == CONTEXT_TOKENS


async def test_a_prompt_is_never_extractive(settled: Serving) -> None:
    """No encoder follows an instruction, whether there is one or not."""
    refusal = await _refused(settled, _method(prompt(), pb.METHOD_EXTRACTIVE))
    assert (refusal.code, refusal.reason) == (Code.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert refusal.metadata == {"field": "task.method"}


async def test_the_extractive_method_without_an_encoder_says_so(settled: Serving) -> None:
    """A server of a decoder alone cannot pick sentences."""
    refusal = await _refused(settled, _method(ask("Who?"), pb.METHOD_EXTRACTIVE))
    assert (refusal.code, refusal.reason) == (Code.UNAVAILABLE, "WORKERS_UNAVAILABLE")
    assert "without an encoder" in refusal.message


async def test_an_unknown_method_is_refused(settled: Serving) -> None:
    """The wire carries any number; 9 is no method."""
    task = pb.Task.FromString(ask("Who?").SerializeToString() + bytes([6 << 3, 9]))
    refusal = await _refused(settled, task)
    assert (refusal.code, refusal.metadata) == (Code.INVALID_ARGUMENT, {"field": "task.method"})


async def test_generating_without_a_model_says_what_to_do(tmp_path: Path) -> None:
    """A server of an encoder alone refuses the generative method at the header."""
    skip_without_embedded()
    async with serving_with(tmp_path) as serving:
        for task in (_method(ask("Who?"), pb.METHOD_GENERATIVE), prompt()):
            refusal = await _refused(serving, task)
            assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "DECODER_REQUIRED")
            assert "longspan serve --model" in refusal.message


async def test_a_refused_call_may_send_all_the_same(settled: Serving) -> None:
    """A client that does not listen while it sends hears the refusal afterwards."""
    messages = [*analyze_messages(AGREEMENT, prompt(temperature=-1.0), 500)]
    assert messages[-1].commit == commit(AGREEMENT)
    events, refusal = await converse(settled, "Analyze", messages)
    assert events == []
    assert refusal is not None
    assert refusal.metadata == {"field": "task.generation.temperature"}


def _without_safetensors(folder: Path) -> dict[str, Any]:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return {}


def _with_code(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "mine.Mine"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("raise SystemExit('this must never run')")
    return {}


def _without_tokenizer(folder: Path) -> dict[str, Any]:
    (folder / "tokenizer.json").unlink()
    return {}


def _too_many_pages(folder: Path) -> dict[str, Any]:
    return {"kv_memory": 2 * psutil.virtual_memory().total}


def _with_a_policy_of_no_model(folder: Path) -> dict[str, Any]:
    return {"attention": "blocks"}


STARTS = {
    "pickled": (_without_safetensors, ["pytorch_model.bin", "no model.safetensors"]),
    "code": (_with_code, ["'mine' needs code that must be trusted"]),
    "tokenizer": (_without_tokenizer, ["no tokenizer.json"]),
    "attention": (_with_a_policy_of_no_model, ["blocks", "full, window, hybrid, hierarchical"]),
    "memory": (_too_many_pages, ["out of memory", "GiB for KV pages", "GiB free"]),
}


@pytest.fixture(scope="module")
def good_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a server would start with."""
    return tiny_decoder("llama", tmp_path_factory.mktemp("model") / "tiny", context_tokens=512)


@pytest.mark.parametrize("name", STARTS)
async def test_a_start_that_must_fail_says_why_and_leaves_nothing(
    tmp_path: Path, good_model: Path, name: str
) -> None:
    """One line with the cause; no worker goes on, and the data directory is free again."""
    spoil, words = STARTS[name]
    folder = Path(shutil.copytree(good_model, tmp_path / "model"))
    settings = spoil(folder)
    children = psutil.Process().children(recursive=True)
    with pytest.raises(ConfigError) as failed:
        async with answering(tmp_path / "data", folder, **settings):
            pass
    message = str(failed.value)
    assert [word for word in words if word not in message] == [], message
    assert "Traceback" not in message
    assert "\n" not in message
    assert psutil.Process().children(recursive=True) == children
    async with serving_with(tmp_path / "data", encoder="none") as serving:
        await store(serving.documents, DATA)
