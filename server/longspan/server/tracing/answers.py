"""What a request asks and what its answer cost, in the words of the GenAI conventions."""

from __future__ import annotations

from longspan.server.current_call import current_call
from longspan.server.tasks.method import Method
from longspan.server.tasks.task import Task
from longspan.server.tracing import names
from longspan.v1 import document_pb2
from longspan.v1 import inference_service_pb2 as pb

_OPERATIONS = {Method.GENERATIVE: "chat", Method.EXTRACTIVE: "retrieval"}
_FINISH = "FINISH_REASON_"
_LEVEL = "CACHE_LEVEL_"


def note_task(task: Task, method: Method, model: str) -> None:
    """A task was understood: say on the call's span what it is, and who answers."""
    call = current_call()
    if call is None:
        return
    call.span.set_attributes(
        {
            names.OPERATION: _OPERATIONS[method],
            names.PROVIDER: "longspan",
            names.REQUEST_MODEL: model,
            names.TASK: type(task).__name__.lower(),
        }
    )


def note_completed(completed: pb.Completed) -> None:
    """An answer is complete: say what it cost on the call's span and in its access line."""
    call = current_call()
    if call is None:
        return
    usage = completed.usage
    tokens = usage.document_tokens + usage.task_tokens
    level = pb.CacheLevel.Name(completed.cache.level).removeprefix(_LEVEL).lower()
    cache = level if completed.cache.hit else "miss"
    call.span.set_attributes(
        {
            names.RESPONSE_MODEL: completed.model,
            names.INPUT_TOKENS: tokens,
            names.OUTPUT_TOKENS: usage.output_tokens,
            names.CACHED_TOKENS: usage.cached_tokens,
            names.FINISH_REASONS: [_finish_reason(completed)],
            names.DOCUMENTS: len(completed.documents),
            names.FIRST_CHUNK_S: _first_chunk_s(completed),
            names.RETRIES: usage.retries,
            names.ANSWER_CACHE: cache,
            names.ATTENTION: completed.attention.policy,
        }
    )
    call.usage |= {
        "bytes": sum(document.size_bytes for document in completed.documents),
        "input_tokens": tokens,
        "cached_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "retries": usage.retries,
        "cache": cache,
    }


def note_stored(document: document_pb2.Document) -> None:
    """A document was stored: say how large it is."""
    call = current_call()
    if call is None:
        return
    call.span.set_attributes(
        {
            names.OPERATION: "embeddings",
            names.DOCUMENT_ID: document.document_id,
            names.BYTES: document.size_bytes,
            names.INPUT_TOKENS: document.tokens,
        }
    )
    call.usage |= {"bytes": document.size_bytes, "input_tokens": document.tokens}


def _first_chunk_s(completed: pb.Completed) -> float:
    """Seconds from the arrival of the request to the first piece of its answer."""
    timings = completed.timings
    return timings.upload.ToTimedelta().total_seconds() + (
        timings.first_delta.ToTimedelta().total_seconds()
    )


def _finish_reason(completed: pb.Completed) -> str:
    return pb.FinishReason.Name(completed.finish_reason).removeprefix(_FINISH).lower()
