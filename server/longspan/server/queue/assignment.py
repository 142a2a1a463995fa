"""Which job goes to which worker. Pure policy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, TypeVar

from longspan.server.queue.fair_queue import FairQueue
from longspan.server.queue.job import Job, JobId
from longspan.server.queue.window import Window

WorkerKey = TypeVar("WorkerKey")


class Assignment(NamedTuple):
    """A job, and whether nothing else may run beside it."""

    job: Job
    alone: bool


def next_assignment(
    queue: FairQueue,
    windows: Mapping[WorkerKey, Window],
    suspects: Collection[JobId],
    now: float,
) -> tuple[WorkerKey, Assignment] | None:
    """Take the next job from the queue and name its worker; None when nothing can go.

    A waiting suspect gets the first empty worker for itself. Until there is one, the
    worker with the least to do gets nothing new, so that it runs empty; the others go on.
    """
    suspect = next((job_id for job_id in suspects if job_id in queue), None)
    if suspect is not None:
        empty = next((key for key, window in windows.items() if not window.jobs), None)
        job = queue.remove(suspect) if empty is not None else None
        if empty is not None and job is not None:
            return empty, Assignment(job, alone=True)
    worker = _least_loaded(windows, spare_one=suspect is not None)
    job = queue.pop(now, pass_over=suspects) if worker is not None else None
    return (worker, Assignment(job, alone=False)) if worker is not None and job else None


def _least_loaded(windows: Mapping[WorkerKey, Window], *, spare_one: bool) -> WorkerKey | None:
    """The open worker with the fewest tokens; with ``spare_one``, one is left to run empty."""
    by_load = sorted(windows, key=lambda key: windows[key].tokens)
    if spare_one and all(window.exclusive is None for window in windows.values()):
        by_load = by_load[1:]
    return next((key for key in by_load if windows[key].open), None)
