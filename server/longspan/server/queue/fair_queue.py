"""The fair queue: bounded, with deadlines; pure policy, the caller brings the clock."""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Container
from dataclasses import dataclass

from longspan.server.errors import QueueFull
from longspan.server.identity import Tenant
from longspan.server.queue.deficit_tree import DeficitTree
from longspan.server.queue.drain_rate import DrainRate
from longspan.server.queue.job import Job, JobId


@dataclass(frozen=True, kw_only=True)
class QueueLimits:
    """Bounds of the queue.

    Attributes:
        tokens, jobs: how much may wait.
        tenant_share: part of both that one tenant may hold, in (0, 1]; the rest stays
            free for others who may come.
        quantum_tokens: what a batch-priority flow may spend a turn; at least the cost of
            a usual job, or turns are passed on in vain.
    """

    tokens: int = 8_000_000
    jobs: int = 8192
    tenant_share: float = 0.5
    quantum_tokens: int = 4096

    def __post_init__(self) -> None:
        if min(self.tokens, self.jobs, self.quantum_tokens) < 1 or not 0 < self.tenant_share <= 1:
            raise ValueError(f"not a usable queue: {self}")


class FairQueue:
    """Two-level deficit round robin over tenants, then (size class, priority) flows.

    Starvation bound. Let ``Q`` be the quantum, ``w`` a flow's weight, ``M`` the largest
    cost, and ``S`` the tokens in the job's flow up to and including the job. With
    ``k = ⌈(S + M) / wQ⌉`` turns of its flow, its tenant spends at most
    ``T = S + Σ_other flows ((k + 1) w'Q + M)`` tokens, and with ``K = ⌈(T + M) / Q⌉`` turns
    of its tenant the queue serves at most ``T + (other tenants) · ((K + 1) Q + M)`` tokens
    before the job, whatever arrives later. Ageing follows from that bound; no job's
    priority ever has to be raised.

    Jobs given back by ``push_front`` go before all others: they have paid already. The
    bound holds for the rest of the service; what is given back is at most what was in
    flight.
    """

    def __init__(self, limits: QueueLimits) -> None:
        self._limits = limits
        self._tree = DeficitTree(limits.quantum_tokens)
        self._given_back: OrderedDict[JobId, Job] = OrderedDict()
        self._jobs: dict[JobId, Job] = {}
        self._deadlines: list[tuple[float, JobId]] = []
        self._tenant_tokens: Counter[Tenant] = Counter()
        self._tenant_jobs: Counter[Tenant] = Counter()
        self._drained = DrainRate()

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._jobs

    def find(self, job_id: JobId) -> Job | None:
        """A job that waits."""
        return self._jobs.get(job_id)

    @property
    def tokens(self) -> int:
        """Tokens that wait."""
        return self._tenant_tokens.total()

    def push(self, job: Job, now: float) -> None:
        """Append a job to its flow.

        Raises:
            QueueFull: the queue, or the tenant's share of it, has no room.
        """
        excess_tokens = self._excess_tokens(job)
        if excess_tokens > 0:
            retry_after_s = self._drained.seconds_for(excess_tokens, now)
            raise QueueFull(
                f"{self.tokens} tokens in {len(self)} jobs wait; "
                f"{self._tenant_tokens[job.tenant]} tokens are of tenant {job.tenant}",
                retry_after_s=retry_after_s,
            )
        self._enter(job)
        self._tree.push(job)

    def push_front(self, job: Job) -> None:
        """Give back a job that was popped and not served; never refused, never charged again."""
        self._enter(job)
        self._given_back[job.job_id] = job
        self._given_back.move_to_end(job.job_id, last=False)

    def pop(self, now: float, *, pass_over: Container[JobId] = ()) -> Job | None:
        """Remove and return the next job; of those given back, pass over some."""
        job = next((job for job in self._given_back.values() if job.job_id not in pass_over), None)
        if job is not None:
            del self._given_back[job.job_id]
        else:
            job = self._tree.take()
        if job is not None:
            self._leave(job)
            self._drained.record(job.cost_tokens, now)
        return job

    def remove(self, job_id: JobId) -> Job | None:
        """Remove one job wherever it waits; None when it does not."""
        job = self._jobs.get(job_id)
        if job is None:
            return None
        if self._given_back.pop(job_id, None) is None:
            self._tree.remove(job)
        self._leave(job)
        return job

    def expire(self, now: float) -> list[Job]:
        """Remove and return the jobs whose deadline is not after ``now``."""
        expired: list[Job] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, job_id = heapq.heappop(self._deadlines)
            job = self.remove(job_id)
            if job is not None:
                expired.append(job)
        return expired

    def order(self) -> list[JobId]:
        """All waiting jobs as they would be popped if nothing else came. O(jobs)."""
        tree = self._tree.copy()
        order = list(self._given_back)
        while (job := tree.take()) is not None:
            order.append(job.job_id)
        return order

    def position(self, job_id: JobId) -> int | None:
        """Jobs ahead of this one if nothing else came; None when it does not wait. O(jobs)."""
        return self.order().index(job_id) if job_id in self._jobs else None

    def _excess_tokens(self, job: Job) -> int:
        """Tokens that must leave before the job fits; a missing place counts as its cost."""
        share = self._limits.tenant_share
        tokens = job.cost_tokens + max(
            self.tokens - self._limits.tokens,
            self._tenant_tokens[job.tenant] - int(share * self._limits.tokens),
        )
        full = len(self) >= self._limits.jobs or self._tenant_jobs[job.tenant] >= max(
            1, int(share * self._limits.jobs)
        )
        return max(tokens, job.cost_tokens) if full else tokens

    def _enter(self, job: Job) -> None:
        if job.job_id in self._jobs:
            raise ValueError(f"job {job.job_id} waits already")
        self._jobs[job.job_id] = job
        self._tenant_tokens[job.tenant] += job.cost_tokens
        self._tenant_jobs[job.tenant] += 1
        if job.deadline_s is not None:
            heapq.heappush(self._deadlines, (job.deadline_s, job.job_id))

    def _leave(self, job: Job) -> None:
        del self._jobs[job.job_id]
        self._tenant_tokens[job.tenant] -= job.cost_tokens
        self._tenant_jobs[job.tenant] -= 1
        if not self._tenant_jobs[job.tenant]:
            del self._tenant_tokens[job.tenant], self._tenant_jobs[job.tenant]
        self._forget_deadlines()

    def _forget_deadlines(self) -> None:
        """Rebuild the heap when most of it is of jobs that left: it must not grow for ever."""
        if len(self._deadlines) > 2 * len(self._jobs) + 64:
            self._deadlines = [entry for entry in self._deadlines if entry[1] in self._jobs]
            heapq.heapify(self._deadlines)
