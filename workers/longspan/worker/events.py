"""Scheduler outcomes and engine state as messages of the wire contract."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.admission import JobRefused
from longspan.worker.encoder import Encoder
from longspan.worker.job import JobId
from longspan.worker.limits import VECTORS_BYTES
from longspan.worker.model_files import ModelFiles
from longspan.worker.scheduler import JobCancelled, JobEncoded, Outcome


def ready(files: ModelFiles, encoder: Encoder) -> pb.Event:
    """What the worker serves."""
    return pb.Event(
        ready=pb.Ready(
            model=files.name,
            fingerprint=files.fingerprint,
            dtype=str(encoder.dtype).removeprefix("torch."),
            dimension=encoder.rules.dimension,
            max_tokens=encoder.rules.max_tokens,
            device=str(encoder.device),
        )
    )


def ended(outcome: Outcome) -> pb.Event:
    """The terminal event of a job."""
    match outcome:
        case JobEncoded(job_id, vectors):
            return pb.Event(encoded=pb.Encoded(job_id=job_id, vectors=vectors))
        case JobCancelled(job_id):
            return pb.Event(cancelled=pb.Cancelled(job_id=job_id))


def refused(job_id: JobId, refusal: JobRefused) -> pb.Event:
    """The terminal event of a job that was not taken."""
    failed = pb.Failed(job_id=job_id, reason=refusal.reason.value, message=str(refusal))
    return pb.Event(failed=failed)


def heartbeat(step: int, *, busy: bool, jobs: int, running: Sequence[JobId]) -> pb.Event:
    """A sign of life; ``running`` names the jobs in the running step."""
    return pb.Event(heartbeat=pb.Heartbeat(step=step, busy=busy, jobs=jobs, running=running))


def responses(events: Iterable[pb.Event]) -> Iterator[pb.ExecuteResponse]:
    """Batch events into messages; a batch closes once it holds one job's largest result."""
    batch = pb.ExecuteResponse()
    size = 0
    for event in events:
        if batch.events and size + event.ByteSize() > VECTORS_BYTES:
            yield batch
            batch, size = pb.ExecuteResponse(), 0
        batch.events.append(event)
        size += event.ByteSize()
    if batch.events:
        yield batch
