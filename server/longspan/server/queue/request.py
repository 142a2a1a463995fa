"""What a caller says about the request behind its jobs."""

from __future__ import annotations

from dataclasses import dataclass, field

from longspan.server.identity import Tenant
from longspan.server.queue.job import Priority, RequestId, Subject

NOBODY = Subject("")


@dataclass(slots=True)
class RequestStats:
    """What happened to a request so far, for its usage report.

    Attributes:
        retries: jobs sent again because a worker died.
    """

    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """One request; shared by all its jobs.

    Attributes:
        tokens: of the whole request; decides its size class.
        deadline_s: on the event loop's clock; None waits for ever.
        subject: what it is about, by which it is quarantined.
        kept_as: the one document or upload whose KV pages its prompt has; empty where it has
            several, or none.
        stats: counted up while the request runs.
    """

    request_id: RequestId
    tenant: Tenant
    priority: Priority
    tokens: int
    subject: Subject
    kept_as: Subject = NOBODY
    deadline_s: float | None = None
    stats: RequestStats = field(default_factory=RequestStats)
