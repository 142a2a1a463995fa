"""What a caller says about the request behind its jobs."""

from __future__ import annotations

from dataclasses import dataclass, field

from longspan.server.identity import Tenant
from longspan.server.queue.job import Priority, RequestId, Subject


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
        subject: content hash of the document, by which it is quarantined.
        stats: counted up while the request runs.
    """

    request_id: RequestId
    tenant: Tenant
    priority: Priority
    tokens: int
    subject: Subject
    deadline_s: float | None = None
    stats: RequestStats = field(default_factory=RequestStats)
