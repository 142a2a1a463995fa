"""Deficit round robin in two levels: tenants share first, then a tenant's flows.

M. Shreedhar, G. Varghese, "Efficient Fair Queueing using Deficit Round Robin", SIGCOMM 1995.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Generic, TypeVar

from longspan.server.identity import Tenant
from longspan.server.queue.job import FlowKey, Job, JobId, Priority

WEIGHTS: Mapping[Priority, int] = {
    Priority.BATCH: 1,
    Priority.NORMAL: 2,
    Priority.INTERACTIVE: 4,
}


class Flow:
    """Jobs in order of arrival.

    Attributes:
        quantum_tokens: what one turn adds to the deficit.
        deficit_tokens: what may be spent before the turn passes on.
    """

    def __init__(self, quantum_tokens: int) -> None:
        self.quantum_tokens = quantum_tokens
        self.deficit_tokens = 0
        self.jobs: OrderedDict[JobId, Job] = OrderedDict()

    def peek(self) -> Job:
        """The oldest job."""
        return next(iter(self.jobs.values()))

    def copy(self) -> Flow:
        """An equal flow that shares nothing mutable."""
        twin = Flow(self.quantum_tokens)
        twin.deficit_tokens = self.deficit_tokens
        twin.jobs = self.jobs.copy()
        return twin


Key = TypeVar("Key")
Child = TypeVar("Child", bound="Flow | Ring[FlowKey, Flow]")


class Ring(Generic[Key, Child]):
    """Backlogged children in round-robin order; the first one has the turn."""

    def __init__(self, quantum_tokens: int) -> None:
        self.quantum_tokens = quantum_tokens
        self.deficit_tokens = 0
        self.children: OrderedDict[Key, Child] = OrderedDict()

    def add(self, key: Key, child: Child) -> Child:
        """Append a child; alone, it has the turn at once."""
        self.children[key] = child
        if len(self.children) == 1:
            self._grant()
        return child

    def peek(self) -> Job:
        """The job to serve next; moves the turn on to the child that can pay for it.

        Peeking again without a change gives the same job.
        """
        while True:
            child = self._first()
            job = child.peek()
            if job.cost_tokens <= child.deficit_tokens:
                return job
            self.children.move_to_end(next(iter(self.children)))
            self._grant()

    def discard(self, key: Key) -> None:
        """Drop an empty child; its deficit is lost, as the paper has it."""
        had_the_turn = next(iter(self.children)) == key
        del self.children[key]
        if had_the_turn and self.children:
            self._grant()

    def _first(self) -> Child:
        return next(iter(self.children.values()))

    def _grant(self) -> None:
        child = self._first()
        child.deficit_tokens += child.quantum_tokens


class DeficitTree:
    """Tenants, their flows, and the jobs in them. O(1) a job while quantum ≥ cost."""

    def __init__(self, quantum_tokens: int) -> None:
        self._quantum_tokens = quantum_tokens
        self._root: Ring[Tenant, Ring[FlowKey, Flow]] = Ring(0)

    def __bool__(self) -> bool:
        return bool(self._root.children)

    def push(self, job: Job) -> None:
        """Append a job to its flow."""
        tenant = self._root.children.get(job.tenant)
        if tenant is None:
            tenant = self._root.add(job.tenant, Ring(self._quantum_tokens))
        flow = tenant.children.get(job.flow)
        if flow is None:
            quantum_tokens = self._quantum_tokens * WEIGHTS[job.priority]
            flow = tenant.add(job.flow, Flow(quantum_tokens))
        flow.jobs[job.job_id] = job

    def take(self) -> Job | None:
        """Remove and return the job whose turn it is."""
        if not self._root.children:
            return None
        job = self._root.peek()
        tenant = self._root.children[job.tenant]
        tenant.deficit_tokens -= job.cost_tokens
        tenant.children[job.flow].deficit_tokens -= job.cost_tokens
        self.remove(job)
        return job

    def remove(self, job: Job) -> None:
        """Remove a job that is in the tree, and whatever that leaves empty."""
        tenant = self._root.children[job.tenant]
        flow = tenant.children[job.flow]
        del flow.jobs[job.job_id]
        if not flow.jobs:
            tenant.discard(job.flow)
        if not tenant.children:
            self._root.discard(job.tenant)

    def copy(self) -> DeficitTree:
        """A tree that will serve the same jobs in the same order."""
        twin = DeficitTree(self._quantum_tokens)
        for name, tenant in self._root.children.items():
            ring: Ring[FlowKey, Flow] = Ring(tenant.quantum_tokens)
            ring.deficit_tokens = tenant.deficit_tokens
            ring.children = OrderedDict((key, flow.copy()) for key, flow in tenant.children.items())
            twin._root.children[name] = ring
        return twin
