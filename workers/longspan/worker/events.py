"""Events that every kind of worker sends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from longspan.internal.v1 import worker_service_pb2 as pb
from longspan.worker.limits import VECTORS_BYTES
from longspan.worker.workload import PageCounts


def cancelled(job_id: int) -> pb.Event:
    """The terminal event of a job that was cancelled."""
    return pb.Event(cancelled=pb.Cancelled(job_id=job_id))


def failed(job_id: int, reason: str, message: str) -> pb.Event:
    """The terminal event of a job that was not taken, or could not be finished."""
    return pb.Event(failed=pb.Failed(job_id=job_id, reason=reason, message=message))


def heartbeat(
    step: int,
    *,
    busy: bool,
    jobs: int,
    running: Sequence[int],
    pages: PageCounts,
    computed: pb.Computed | None = None,
) -> pb.Event:
    """A sign of life; ``running`` names the jobs in the running step."""
    return pb.Event(
        heartbeat=pb.Heartbeat(
            step=step,
            busy=busy,
            jobs=jobs,
            running=running,
            used_pages=pages.used,
            cached_pages=pages.cached,
            total_pages=pages.total,
            computed=computed,
        )
    )


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
