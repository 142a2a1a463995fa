"""What one worker has been given and has not answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from longspan.server.queue.job import Job, JobId


@dataclass(slots=True)
class Window:
    """Accounts for one worker process; bounded in tokens and in jobs.

    A cancelled job stays until the worker says that it let go of it. A job that waits for its
    client is here, but leaves its place to others: it costs the worker nothing.

    Attributes:
        limit_held: of all jobs, those that wait for their clients included.
        exclusive: the job that nothing may join, while it is here and not relieved.
    """

    limit_tokens: int
    limit_jobs: int
    limit_held: int
    tokens: int = 0
    exclusive: JobId | None = None
    _jobs: dict[JobId, Job] = field(default_factory=dict)
    _paused: set[JobId] = field(default_factory=set)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    @property
    def jobs(self) -> Mapping[JobId, Job]:
        """The jobs, oldest first."""
        return MappingProxyType(self._jobs)

    @property
    def open(self) -> bool:
        """True when one more job may be added; the last one may exceed the limit."""
        return (
            self.exclusive is None
            and self.tokens < self.limit_tokens
            and len(self._jobs) - len(self._paused) < self.limit_jobs
            and len(self._jobs) < self.limit_held
        )

    def add(self, job: Job, *, alone: bool) -> None:
        """Count a job in; with ``alone``, nothing joins it."""
        assert self.open
        self._jobs[job.job_id] = job
        self.tokens += job.cost_tokens
        if alone:
            self.exclusive = job.job_id

    def pause(self, job_id: JobId) -> bool:
        """The job has nothing to do until its client goes on; True where that is news."""
        if job_id in self._paused or job_id not in self._jobs:
            return False
        self._paused.add(job_id)
        return True

    def resume(self, job_id: JobId) -> None:
        """The job has something to do; it may exceed the limit, as it was promised its place."""
        self._paused.discard(job_id)

    def relieve(self, job_id: JobId) -> None:
        """Others may join the job again."""
        if self.exclusive == job_id:
            self.exclusive = None

    def release(self, job_id: JobId) -> bool:
        """Count a job out; False when it was not here."""
        job = self._jobs.pop(job_id, None)
        if job is None:
            return False
        self.tokens -= job.cost_tokens
        self.resume(job_id)
        self.relieve(job_id)
        return True
