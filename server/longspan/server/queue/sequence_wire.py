"""Sequences as the worker protocol has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.server.errors import (
    DeadlineExceeded,
    GenerationFailed,
    InvalidRequest,
    LongspanError,
    PromptTooLong,
    QueueFull,
)
from longspan.server.queue.job import Job
from longspan.server.queue.output import Finish, FinishReason

# One message's share of a prompt: far below the message limit.
MESSAGE_TOKENS = 256 * 1024
RETRY_S = 1.0

_REASONS = {
    pb.FINISH_REASON_STOP: FinishReason.STOP,
    pb.FINISH_REASON_LENGTH: FinishReason.LENGTH,
}


def open_command(
    job: Job,
    sampling: pb.Sampling,
    *,
    prompt: bytes,
    sealed: bool,
    delivered: bytes,
    now: float,
) -> pb.ExecuteRequest:
    """The command that opens a sequence."""
    deadline_ms = 0
    if job.deadline_s is not None:
        deadline_ms = max(1, int((job.deadline_s - now) * 1000))
    return pb.ExecuteRequest(
        open=pb.Open(
            job_id=job.job_id,
            tenant=job.tenant,
            prompt=prompt,
            sealed=sealed,
            sampling=sampling,
            delivered=delivered,
            priority=job.priority,
            deadline_ms=deadline_ms,
        )
    )


def append_command(job: Job, tokens: bytes, *, seal: bool) -> pb.ExecuteRequest:
    """The command that gives a sequence more of its prompt."""
    return pb.ExecuteRequest(append=pb.Append(job_id=job.job_id, tokens=tokens, seal=seal))


def end_of(event: pb.Event, sampling: pb.Sampling) -> Finish | LongspanError | None:
    """How a sequence ended by a worker's event; None when it goes on."""
    match event.WhichOneof("kind"):
        case "finished":
            reason = _REASONS.get(event.finished.reason, FinishReason.STOP)
            return Finish(reason, event.finished.cached_tokens)
        case "failed":
            return failure(event.failed, sampling)
        case "cancelled":
            return GenerationFailed("the worker cancelled the sequence of its own accord")
    return None


def failure(failed: pb.Failed, sampling: pb.Sampling) -> LongspanError:
    """The error that a worker's Failed means to the caller."""
    known = _FAILURES.get(failed.reason)
    if known is None:
        return GenerationFailed(f"{failed.reason}: {failed.message}")
    return known(failed.message, sampling)


def _grammar_field(sampling: pb.Sampling) -> str:
    return f"task.generation.{sampling.grammar.WhichOneof('kind') or 'format'}"


_FAILURES: Mapping[str, Callable[[str, pb.Sampling], LongspanError]] = {
    "PROMPT_TOO_LONG": lambda message, _: PromptTooLong.said_by_worker(message),
    "OUT_OF_PAGES": lambda message, _: PromptTooLong.said_by_worker(message),
    "BAD_GRAMMAR": lambda message, sampling: InvalidRequest(
        message, field=_grammar_field(sampling)
    ),
    "BAD_REQUEST": lambda message, _: InvalidRequest(message, field="task.generation"),
    "DEADLINE_EXCEEDED": lambda message, _: DeadlineExceeded(message),
    "QUEUE_FULL": lambda message, _: QueueFull(message, retry_after_s=RETRY_S),
}
