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
from longspan.server.queue.output import AttentionUsage, Finish, FinishReason
from longspan.server.queue.prompt import Prompt

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
    prompt: Prompt,
    *,
    given: int,
    attention: str,
    subject: str,
    delivered: bytes,
    now: float,
    trace: Mapping[str, str],
) -> pb.ExecuteRequest:
    """The command that opens a sequence.

    Args:
        given: how many tokens of the prompt go with it.
        attention: name of its policy.
        subject: whose pages it computes.
        delivered: ids of the tokens that an earlier worker generated.
        trace: W3C headers of the request.
    """
    deadline_ms = 0
    if job.deadline_s is not None:
        deadline_ms = max(1, int((job.deadline_s - now) * 1000))
    return pb.ExecuteRequest(
        open=pb.Open(
            job_id=job.job_id,
            tenant=job.tenant,
            prompt=prompt.part(0, given),
            sealed=prompt.ends_at(given),
            sampling=sampling,
            delivered=delivered,
            priority=job.priority,
            deadline_ms=deadline_ms,
            attention=attention,
            task_start=_task_start(prompt, given),
            subject=subject,
            trace=trace,
        )
    )


def rename_command(job: Job, subject: str) -> pb.ExecuteRequest:
    """The command that gives what a sequence is about another name."""
    return pb.ExecuteRequest(rename=pb.Rename(job_id=job.job_id, subject=subject))


def append_command(job: Job, prompt: Prompt, *, start: int, end: int) -> pb.ExecuteRequest:
    """The command that gives a sequence these tokens of its prompt."""
    return pb.ExecuteRequest(
        append=pb.Append(
            job_id=job.job_id,
            tokens=prompt.part(start, end),
            seal=prompt.ends_at(end),
            task_start=_task_start(prompt, end),
        )
    )


def _task_start(prompt: Prompt, end: int) -> int:
    """For the message that seals, whichever it is; 0 in all others, and without a task."""
    has_task = prompt.ends_at(end) and prompt.task_start < len(prompt)
    return prompt.task_start if has_task else 0


def end_of(event: pb.Event, sampling: pb.Sampling) -> Finish | LongspanError | None:
    """How a sequence ended by a worker's event; None when it goes on."""
    match event.WhichOneof("kind"):
        case "finished":
            reason = _REASONS.get(event.finished.reason, FinishReason.STOP)
            return Finish(reason, event.finished.cached_tokens, _attention(event.finished))
        case "failed":
            return failure(event.failed, sampling)
        case "cancelled":
            return GenerationFailed("the worker cancelled the sequence of its own accord")
    return None


def _attention(finished: pb.Finished) -> AttentionUsage | None:
    if not finished.attention:
        return None
    return AttentionUsage(
        policy=finished.attention, kv_bytes=finished.kv_bytes, seen_share=finished.seen_share
    )


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
