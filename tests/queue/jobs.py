"""Jobs for tests, and the bounds that the fair queue promises."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from math import ceil
from typing import TypeVar

from hypothesis import strategies as st

from longspan.server.identity import Tenant
from longspan.server.queue.deficit_tree import WEIGHTS
from longspan.server.queue.job import FlowKey, Job, JobId, Priority, RequestId, SizeClass

Key = TypeVar("Key")

LARGEST = 300
FLOWS: list[FlowKey] = list(itertools.product(SizeClass, Priority))
TENANTS = [Tenant(name) for name in "abc"]
_REQUEST_TOKENS = {SizeClass.SHORT: 100, SizeClass.MEDIUM: 10_000, SizeClass.LONG: 100_000}

costs = st.integers(1, LARGEST)
flows = st.sampled_from(FLOWS)
tenants = st.sampled_from(TENANTS)


def job(
    number: int,
    cost: int = 1,
    tenant: str = "a",
    flow: FlowKey = (SizeClass.SHORT, Priority.NORMAL),
    deadline_s: float | None = None,
) -> Job:
    """A job of a request of its own."""
    return Job(
        job_id=JobId(number),
        request_id=RequestId(f"r{number}"),
        tenant=Tenant(tenant),
        priority=flow[1],
        request_tokens=_REQUEST_TOKENS[flow[0]],
        cost_tokens=cost,
        deadline_s=deadline_s,
    )


def naive_order(jobs: Iterable[Job], quantum: int) -> list[Job]:
    """Both levels of deficit round robin, as in the paper's figure, for a fixed backlog."""
    tenants: dict[Tenant, dict[FlowKey, list[Job]]] = {}
    for one in jobs:
        tenants.setdefault(one.tenant, {}).setdefault(one.flow, []).append(one)
    lists = {
        tenant: list(_rounds({key: (quantum * WEIGHTS[key[1]], of) for key, of in flows.items()}))
        for tenant, flows in tenants.items()
    }
    return list(_rounds({tenant: (quantum, of) for tenant, of in lists.items()}))


def _rounds(queues: Mapping[Key, tuple[int, list[Job]]]) -> Iterator[Job]:
    left = {key: list(jobs) for key, (_, jobs) in queues.items()}
    deficit = dict.fromkeys(queues, 0)
    while any(left.values()):
        for key, (quantum, _) in queues.items():
            deficit[key] += quantum
            while left[key] and left[key][0].cost_tokens <= deficit[key]:
                deficit[key] -= left[key][0].cost_tokens
                yield left[key].pop(0)


def starvation_bound(ahead_tokens: int, flow: FlowKey, quantum: int, tenants: int) -> int:
    """The bound of ``FairQueue``'s docstring, with every flow of the tenant in use."""
    turns = ceil((ahead_tokens + LARGEST) / (quantum * WEIGHTS[flow[1]]))
    own = ahead_tokens + sum(
        (turns + 1) * WEIGHTS[other[1]] * quantum + LARGEST for other in FLOWS if other != flow
    )
    tenant_turns = ceil((own + LARGEST) / quantum)
    return own + (tenants - 1) * ((tenant_turns + 1) * quantum + LARGEST)
