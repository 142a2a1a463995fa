"""Which sequence goes to which worker. Pure policy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from longspan.server.queue.assignment import Assignment
from longspan.server.queue.fair_queue import FairQueue
from longspan.server.queue.job import Job, JobId
from longspan.server.queue.window import Window

WorkerKey = TypeVar("WorkerKey")


def next_placement(
    queue: FairQueue,
    windows: Mapping[WorkerKey, Window],
    suspects: Collection[JobId],
    home: Callable[[Job], WorkerKey | None],
    now: float,
) -> tuple[WorkerKey, Assignment] | None:
    """Take the next sequence from the queue and name its worker; None when nothing can go.

    A suspect is on probation until it has gone beyond the place where its worker died:
    meanwhile its worker gets nothing new, so a second death names it. What runs there
    already runs on: sequences last for minutes, and waiting until a worker is empty, as
    embedding jobs do, would hold up everybody. Shorter suspects go first, as they are
    cleared sooner. Others go to the worker that holds their pages, else to the one with
    the least to do.
    """
    open_windows = {key: window for key, window in windows.items() if window.open}
    if not open_windows:
        return None
    quietest = min(open_windows, key=lambda key: open_windows[key].tokens)
    suspect = _shortest(queue, suspects)
    if suspect is not None:
        queue.remove(suspect.job_id)
        return quietest, Assignment(suspect, alone=True)
    job = queue.pop(now)
    if job is None:
        return None
    at_home = home(job)
    worker = at_home if at_home is not None and at_home in open_windows else quietest
    return worker, Assignment(job, alone=False)


def _shortest(queue: FairQueue, suspects: Collection[JobId]) -> Job | None:
    waiting = [job for job_id in suspects if (job := queue.find(job_id)) is not None]
    return min(waiting, key=lambda job: job.cost_tokens, default=None)
