"""What is queued: one job, its cost and its class."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NewType

from longspan.server.errors import DeadlineExceeded
from longspan.server.identity import Tenant

JobId = NewType("JobId", int)
RequestId = NewType("RequestId", str)
Subject = NewType("Subject", str)

SHORT_TOKENS = 4 * 1024
MEDIUM_TOKENS = 64 * 1024


class Priority(IntEnum):
    """How much of its tenant's share a request gets; the numbers are the wire's."""

    BATCH = 1
    NORMAL = 2
    INTERACTIVE = 3


class SizeClass(IntEnum):
    """Requests of like size queue together, so that a long one never blocks a short one."""

    SHORT = 1
    MEDIUM = 2
    LONG = 3

    @classmethod
    def of(cls, request_tokens: int) -> SizeClass:
        """The class of a request by its total tokens: at most 4k, at most 64k, or more."""
        if request_tokens <= SHORT_TOKENS:
            return cls.SHORT
        return cls.MEDIUM if request_tokens <= MEDIUM_TOKENS else cls.LONG


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One unit of work for a worker. Its payload is kept elsewhere, under ``job_id``.

    Attributes:
        request_tokens: tokens of the whole request; decides the size class.
        cost_tokens: tokens of this job alone, at least 1.
        deadline_s: on the caller's clock; None waits for ever.

    Raises:
        ValueError: the cost is not positive.
    """

    job_id: JobId
    request_id: RequestId
    tenant: Tenant
    priority: Priority
    request_tokens: int
    cost_tokens: int
    deadline_s: float | None = None

    def __post_init__(self) -> None:
        if self.cost_tokens < 1:
            raise ValueError(f"a job costs at least one token, not {self.cost_tokens}")

    @property
    def flow(self) -> FlowKey:
        """The flow it queues in, inside its tenant."""
        return SizeClass.of(self.request_tokens), self.priority


FlowKey = tuple[SizeClass, Priority]


def deadline_error(job: Job) -> DeadlineExceeded:
    """The one wording of a deadline that passed."""
    return DeadlineExceeded(f"the deadline of request {job.request_id} passed")
